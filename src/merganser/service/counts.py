"""How many items a partition holds, and how large they are: kept with its hash tree, at the cost of two looks a write.

A count is of the registers that a replica holds, changed with each of them. One that is damaged when it is overwritten
stays counted as it was, so a count may be off by what has rotted since the rows were counted last.

What an item is, and how large, is a wire's to say (`Measure`), which looks at the stored bytes in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from merganser.model.errors import CorruptionError
from merganser.storage.registers import value_at
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


class Counter(msgspec.Struct):
    """The count of one partition, while it changes."""

    measure: Measure | None
    """Of the table's wire; None: its rows are not counted."""
    items: int = 0
    size_bytes: int = 0
    local_sizes: LocalSizes | None = None
    """None: the table has no local indexes."""
    local: dict[int, tuple[int, int]] = {}
    """Items and bytes by the number of the index."""

    @classmethod
    def of(cls, measure: Measure | None, local_sizes: LocalSizes | None, count: Count = NOTHING) -> Counter:
        """Return a counter that goes on from ``count``."""
        local = {index: (items, size_bytes) for index, items, size_bytes in count.local}
        return cls(measure, count.items, count.size_bytes, local_sizes, local)

    def change(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """Take note that a register has changed."""
        measure = self.measure
        if measure is None:
            return
        for stored, sign in ((after, 1), (before, -1)):
            if stored is None:
                continue
            try:
                at = value_at(key, stored)
            except CorruptionError:
                continue
            size = None if at is None else measure(stored, at)
            if size is not None:
                self.items += sign
                self.size_bytes += sign * size
        if self.local_sizes is not None:
            self._change_local(self.local_sizes, key, before, -1)
            self._change_local(self.local_sizes, key, after, 1)

    @property
    def count(self) -> Count:
        """What it has come to."""
        return Count(self.items, self.size_bytes, _listed(self.local))

    def _change_local(self, sizes_of: LocalSizes, key: bytes, stored: bytes | None, sign: int) -> None:
        if stored is None:
            return
        try:
            check_row(key, stored)
            at = value_at(key, stored)
        except CorruptionError:  # nobody can tell where it stands
            return
        for index, size in () if at is None else sizes_of(stored[at:]):
            items, size_bytes = self.local.get(index, (0, 0))
            self.local[index] = (items + sign, size_bytes + sign * size)


def _listed(local: dict[int, tuple[int, int]]) -> tuple[tuple[int, int, int], ...]:
    return tuple((index, *local[index]) for index in sorted(local) if local[index][0])
