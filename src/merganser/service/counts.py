"""How many items a partition holds, and how large they are: kept with its hash tree, at the cost of two looks a write.

A count is of the registers that a replica holds, changed with each of them. One that is damaged when it is overwritten
stays counted as it was, so a count may be off by what has rotted since the rows were counted last.

What an item is, and how large, is a wire's to say (`Measure`), which looks at the stored bytes in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from merganser.model.errors import CorruptionError
from merganser.storage.registers import PLAIN_VALUE_AT, is_plain, value_at
from merganser.storage.values import check_row

Measure = Callable[[bytes, int], int | None]
"""Of a wire: from a stored register and where its value begins in it to the size of the item in bytes, None: that is no
item. Quick, and never fails, though the value may be damaged."""


LocalSizes = Callable[[bytes], Sequence[tuple[int, int]]]
"""Of a table with local indexes: from the value of an item, intact, to the number of each index that it stands in, and
the bytes that this shows of it."""


class Count(NamedTuple):
    """What there is."""

    items: int
    size_bytes: int
    local: tuple[tuple[int, int, int], ...] = ()
    """Number, items and bytes of each local index that holds any, in ascending order."""


NOTHING = Count(0, 0)


def total(counts: Sequence[Count]) -> Count:
    """Return what there is together."""
    local: dict[int, tuple[int, int]] = {}
    for one in counts:
        for index, items, size_bytes in one.local:
            before = local.get(index, (0, 0))
            local[index] = (before[0] + items, before[1] + size_bytes)
    return Count(sum(one.items for one in counts), sum(one.size_bytes for one in counts), _listed(local))


class Counter:
    """The count of one partition, while it changes."""

    __slots__ = ("_items", "_local", "_local_sizes", "_measure", "_size_bytes")

    def __init__(self, measure: Measure | None, local_sizes: LocalSizes | None, count: Count = NOTHING) -> None:
        """Go on from ``count``.

        Args:
            measure: of the table's wire; None: its rows are not counted.
            local_sizes: None: the table has no local indexes.
            count: what has been counted.
        """
        self._measure = measure
        self._local_sizes = local_sizes
        self._items = count.items
        self._size_bytes = count.size_bytes
        self._local = {index: (items, size_bytes) for index, items, size_bytes in count.local}
        """Items and bytes by the number of the index."""

    def change(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """Take note that a register has changed."""
        measure = self._measure
        if measure is None:
            return
        if before is not None:
            self._take(measure, key, before, -1)
        if after is not None:
            self._take(measure, key, after, 1)
        if self._local_sizes is not None:
            self._change_local(self._local_sizes, key, before, -1)
            self._change_local(self._local_sizes, key, after, 1)

    @property
    def count(self) -> Count:
        """What it has come to."""
        return Count(self._items, self._size_bytes, _listed(self._local))

    def _take(self, measure: Measure, key: bytes, stored: bytes, sign: int) -> None:
        if is_plain(stored):
            size = measure(stored, PLAIN_VALUE_AT)
        else:
            try:
                at = value_at(key, stored)
            except CorruptionError:
                return
            size = None if at is None else measure(stored, at)
        if size is not None:
            self._items += sign
            self._size_bytes += sign * size

    def _change_local(self, sizes_of: LocalSizes, key: bytes, stored: bytes | None, sign: int) -> None:
        if stored is None:
            return
        try:
            check_row(key, stored)
            at = value_at(key, stored)
        except CorruptionError:  # nobody can tell where it stands
            return
        for index, size in () if at is None else sizes_of(stored[at:]):
            items, size_bytes = self._local.get(index, (0, 0))
            self._local[index] = (items + sign, size_bytes + sign * size)


def _listed(local: dict[int, tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((index, *local[index]) for index in sorted(local) if local[index][0])
