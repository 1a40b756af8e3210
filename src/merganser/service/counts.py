"""How many items a partition holds, and how large they are: kept with its hash tree, at the cost of two looks a write.

A count is of the registers that a replica holds, changed with each of them. One that is damaged when it is overwritten
stays counted as it was, so a count may be off by what has rotted since the rows were counted last.

What an item is, and how large, is a wire's to say (`Measure`), which looks at the stored bytes in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from merganser.model.errors import CorruptionError
from merganser.storage.registers import value_at

Measure = Callable[[bytes, int], int | None]
"""Of a wire: from a stored register and where its value begins in it to the size of the item in bytes, None: that is no
item. Quick, and never fails, though the value may be damaged."""


class Count(NamedTuple):
    """What there is."""

    items: int
    size_bytes: int


NOTHING = Count(0, 0)


class Counter(msgspec.Struct):
    """The count of one partition, while it changes."""

    measure: Measure | None
    """Of the table's wire; None: its rows are not counted."""
    items: int = 0
    size_bytes: int = 0

    def change(self, key: bytes, before: bytes | None, after: bytes | None) -> None:
        """Take note that a register has changed."""
        if self.measure is None:
            return
        old = None if before is None else self._size_of(key, before)
        new = None if after is None else self._size_of(key, after)
        if new is not None:
            self.items += 1
            self.size_bytes += new
        if old is not None:
            self.items -= 1
            self.size_bytes -= old

    @property
    def count(self) -> Count:
        """What it has come to."""
        return Count(self.items, self.size_bytes)

    def _size_of(self, key: bytes, stored: bytes) -> int | None:
        """Return the size of the item in a register, None if there is none."""
        assert self.measure is not None
        try:
            at = value_at(key, stored)
        except CorruptionError:
            return None
        return None if at is None else self.measure(stored, at)
