"""Images of hash trees on disk: what saves counting a partition again after a restart.

::

    key      tree| table 4 partition 8
    value    items 8, their bytes 8 (`service.counts`); how many local indexes hold any 1, and for each its number 1,
             items 8, their bytes 8; the tree (`core.hash_tree`); sealed

Integers are big-endian and unsigned.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from merganser.core.hash_tree import HashTree
from merganser.model.errors import CorruptionError
from merganser.model.ids import PartitionId, TableId
from merganser.service.counts import Count
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.other_tables import drop_others
from merganser.storage.values import seal, unseal

Place = tuple[TableId, PartitionId]

_PREFIX = keys.metadata_key("tree|")
_PLACE = struct.Struct(">IQ")
_COUNT = struct.Struct(">QQB")
_LOCAL = struct.Struct(">BQQ")


def image_key(place: Place) -> bytes:
    """Return the key of a place's image."""
    return _PREFIX + _PLACE.pack(*place)


class TreeImages:
    """The images that an engine holds."""

    def __init__(self, engine: Engine) -> None:
        """Keep them in ``engine``."""
        self._engine = engine

    def load(self, place: Place) -> tuple[HashTree, Count] | None:
        """Return a place's tree and count; None if there is no image, or none that can be used, which is deleted."""
        key = image_key(place)
        try:
            stored = self._engine.get(key)
            if stored is None:
                return None
            return _unpacked(unseal(key, stored))
        except CorruptionError:  # damaged, or of a release that counted less
            self.delete(place)
            return None

    def keep(self, place: Place, tree: HashTree, count: Count, *, with_twigs: bool) -> None:
        """Keep an image, with the tree's twigs or without.

        Raises:
            StorageFailedError: it is unknown whether it is kept.
        """
        key = image_key(place)
        counted = _COUNT.pack(max(0, count.items), max(0, count.size_bytes), len(count.local))
        local = [_LOCAL.pack(index, max(0, items), max(0, size)) for index, items, size in count.local]
        self._engine.commit(Batch().put(key, seal(key, b"".join((counted, *local, tree.pack(with_twigs=with_twigs))))))

    def delete(self, place: Place) -> None:
        """Delete an image, if there is one.

        Raises:
            StorageFailedError: it is unknown whether it is gone.
        """
        self._engine.commit(Batch().delete(image_key(place)))

    def forget_others(self, tables: Sequence[TableId]) -> None:
        """Delete the images of all tables but these, which are in ascending order."""
        batch = Batch()
        drop_others(self._engine, _PREFIX, tables, batch)
        if batch.operations:
            self._engine.commit(batch)

    def forget_all(self, batch: Batch) -> None:
        """Have ``batch`` delete every image."""
        batch.delete_range(_PREFIX, keys.prefix_end(_PREFIX))


def _unpacked(packed: bytes) -> tuple[HashTree, Count]:
    try:
        items, size_bytes, indexes = _COUNT.unpack_from(packed)
        tree_at = _COUNT.size + indexes * _LOCAL.size
        local = tuple(_LOCAL.unpack_from(packed, _COUNT.size + number * _LOCAL.size) for number in range(indexes))
    except struct.error:
        raise CorruptionError(f"no image of a hash tree: {len(packed)} bytes") from None
    return HashTree.unpack(packed[tree_at:]), Count(items, size_bytes, local)
