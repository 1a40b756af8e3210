"""The hash trees that `service.hash_trees` keeps, and where they come from: an image, or the rows on disk.

A tree is made when its partition is first asked for. With an image it tells of all rows at once, and nothing is read;
without one it is empty, and tells of more rows with each slice that is counted, in the order of their keys. One leaf
can be counted by itself at any time, to compare it or to give it twigs.

What a tree is told of changes, and when it is counted, is the business of `service.hash_trees`.
"""

from __future__ import annotations

from collections.abc import Mapping

from merganser.core.hash_tree import (
    FANOUT,
    HashTree,
    fingerprint,
    leaf_of,
    seed_of,
    stretch_tokens,
    twig_at,
    twig_shift,
)
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import CorruptionError, UnavailableError
from merganser.model.ids import TableId
from merganser.service.counts import Counter, Measure
from merganser.service.expiry_index import Expiring, ExpiryIndex
from merganser.service.local_indexes import LocalIndexes, LocalKeys
from merganser.service.tag_index import TagIndex
from merganser.service.topology import Topology
from merganser.service.tree_images import Place, TreeImages
from merganser.storage import keys
from merganser.storage.engine import Engine
from merganser.storage.values import check_row

SLICE_ROWS = 256  # counted between two turns of the loop: about a millisecond
SLICE_BYTES = 1_000_000  # the same, where rows are large


class KeptTree:
    """The tree of one partition, with what it takes to keep it true."""

    __slots__ = (
        "counted_to",
        "counter",
        "expiring",
        "flawed",
        "has_image",
        "image_has_twigs",
        "is_plain",
        "local_keys",
        "problem",
        "seed",
        "tags",
        "tree",
    )

    def __init__(
        self,
        tree: HashTree,
        seed: int,
        counted_to: bytes | None,
        local_keys: LocalKeys | None,
        expiring: Expiring | None,
        counter: Counter,
        *,
        tags: TagIndex | None = None,
        has_image: bool = False,
    ) -> None:
        """Keep ``tree``; the other arguments are told of below."""
        self.tree = tree
        self.seed = seed
        self.counted_to = counted_to
        """The tree tells of the rows before this key; None: of all."""
        self.local_keys = local_keys
        """Of the table's local indexes, None if it has none."""
        self.expiring = expiring
        """How the table's items expire, None if they do not."""
        self.tags = tags
        """If the table's values may have any."""
        self.counter = counter
        """Of the items before ``counted_to``."""
        self.has_image = has_image
        self.image_has_twigs = has_image and tree.has_twigs
        self.is_plain = False
        """It tells of all rows, there is no image, and something has changed since the last look."""
        self.flawed: set[int] = set()
        """Leaves in which a damaged row was met when they were counted."""
        self.problem: str | None = None
        """Why it could not be counted on."""


class KeptTrees:
    """The trees of this node's partitions; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        images: TreeImages,
        *,
        local: LocalIndexes,
        expiries: ExpiryIndex,
        tags: TagIndex,
        measures: Mapping[str, Measure],
        twigs_from_rows: int,
    ) -> None:
        """Have no tree yet; the arguments are those of `HashTrees`."""
        self._topology = topology
        self._engine = engine
        self._images = images
        self._local = local
        self._expiries = expiries
        self._tags = tags
        self._measures = measures
        self._twigs_from_rows = twigs_from_rows
        self.by_place: dict[Place, KeptTree] = {}
        self.shift = twig_shift(topology.ring.partitions)
        """As `core.hash_tree.twig_at` takes it."""
        self.counted_rows = 0
        """Since the start, to build trees."""

    def of(self, place: Place) -> KeptTree:
        """Return the tree of a partition as far as it has been counted.

        Raises:
            UnavailableError: the table was dropped.
        """
        kept = self.by_place.get(place)
        if kept is None:
            kept = self.by_place[place] = self._opened(place)
        return kept

    def _opened(self, place: Place) -> KeptTree:
        table = self.known(place[0])
        seed, image = seed_of(table.unique_id), self._images.load(place)
        measure = self._measures.get(table.wire) if table.has_leaders else None
        local_keys, expiring = self._local.of(table), self._expiries.of(table)
        tags = self._tags if table.has_contents else None
        if image is not None:
            tree, count = image
            counter = Counter(measure, self._local.sizes_of(table), count)
            return KeptTree(tree, seed, None, local_keys, expiring, counter, tags=tags, has_image=True)
        counter = Counter(measure, self._local.sizes_of(table))
        return KeptTree(HashTree(), seed, self._range(place)[0], local_keys, expiring, counter, tags=tags)

    def known(self, table: TableId) -> Table:
        """Return a table of the map.

        Raises:
            UnavailableError: it was dropped.
        """
        known = self._topology.table(table)
        if known is None:
            raise UnavailableError(f"table {table} was dropped; nothing was written")
        return known

    # Counting

    def count_on(self, place: Place) -> int:
        """Count the next slice of a partition that has not been counted to its end; returns how many rows that were.

        Raises:
            CorruptionError: the engine cannot read on; it is kept as the tree's problem.
        """
        kept = self.of(place)
        assert kept.counted_to is not None
        start, (first, end) = kept.counted_to, self._range(place)
        if start == first:
            kept.tree.begin_twigs()
        rows = size = 0
        try:
            for key, stored in self._engine.scan(start, end):
                twig = twig_at(keys.token_in(key), self.shift)
                if is_intact(key, stored):
                    kept.tree.toggle(twig, fingerprint(key, stored, kept.seed), 1)
                    kept.counter.change(key, None, stored)
                else:
                    kept.flawed.add(leaf_of(twig))
                kept.counted_to, rows, size = keys.after(key), rows + 1, size + len(stored)
                if rows >= SLICE_ROWS or size >= SLICE_BYTES:
                    return rows
        except CorruptionError as error:
            kept.problem = f"{named(place)} cannot be read to its end: {error}"
            raise CorruptionError(kept.problem) from error
        finally:
            self.counted_rows += rows
        kept.counted_to, kept.is_plain, kept.problem = None, True, None
        if kept.tree.rows <= self._twigs_from_rows:
            kept.tree.drop_twigs()
        return rows

    def counted(self, place: Place, kept: KeptTree, leaf: int) -> list[int]:
        """Return the twigs of a leaf as the disk has them, as far as the partition has been counted.

        Raises:
            CorruptionError: the engine cannot read it.
        """
        start, end = self.stretch_range(place, leaf)
        if kept.counted_to is not None:
            end = min(end, kept.counted_to)
        sums, is_flawed = [0] * FANOUT, False
        for key, stored in self._engine.scan(start, end):
            if is_intact(key, stored):
                sums[twig_at(keys.token_in(key), self.shift) % FANOUT] ^= fingerprint(key, stored, kept.seed)
            else:
                is_flawed = True
        (kept.flawed.add if is_flawed else kept.flawed.discard)(leaf)
        return sums

    def stretch_range(self, place: Place, stretch: int) -> tuple[bytes, bytes]:
        """Return the range of keys of a leaf, or of a twig (`core.hash_tree.STRETCHES`)."""
        table, partition = place
        first, _ = self._topology.ring.token_range(partition)
        return keys.token_range(table, *stretch_tokens(first, stretch, self.shift))

    def _range(self, place: Place) -> tuple[bytes, bytes]:
        return keys.token_range(place[0], *self._topology.ring.token_range(place[1]))

    # Forgetting

    def learn(self, current: ClusterMap) -> None:
        """Forget the tables that another map no longer has, and hear how the items of the others expire."""
        self.forget_dropped(current)
        expiring = {table.id: self._expiries.of(table) for table in current.tables}
        for (table, _), kept in self.by_place.items():
            kept.expiring = expiring[table]

    def forget_dropped(self, current: ClusterMap) -> None:
        """Forget trees and images of the tables that ``current`` does not have."""
        known = {table.id for table in current.tables}
        for place in [place for place in self.by_place if place[0] not in known]:
            del self.by_place[place]
        self._images.forget_others(sorted(known))

    def forget_all(self) -> None:
        """Forget every tree, as the partitions are others by now; the images are the caller's to forget."""
        self.by_place.clear()
        self.shift = twig_shift(self._topology.ring.partitions)


def is_intact(key: bytes, stored: bytes) -> bool:
    """Tell whether a row is what was written."""
    try:
        check_row(key, stored)
    except CorruptionError:
        return False
    return True


def named(place: Place) -> str:
    """Return what people are told of a partition."""
    return f"partition {place[1]} of table {place[0]}"
