"""Which item comes next: uniform, scrambled zipfian, or mostly the latest.

Items are numbered from 0. As in YCSB's core workloads (Cooper 2010, "Benchmarking Cloud Serving Systems with YCSB",
SoCC, §4.1), with its constant of 0.99; the zipfian numbers are drawn as Gray 1994 ("Quickly Generating Billion-Record
Synthetic Databases", SIGMOD, §3.2) draws them.
"""

from __future__ import annotations

import random
from typing import Literal, Protocol, get_args

ZIPFIAN_CONSTANT = 0.99
_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 0x100000001B3

Choice = Literal["uniform", "zipfian", "latest"]
CHOICES: tuple[str, ...] = get_args(Choice)


class Choose(Protocol):
    """Draws the number of an item."""

    def __call__(self) -> int:
        """Return the next."""


class Zipfian:
    """Ranks from 0 to ``count - 1``: rank r is drawn in proportion to ``1 / (r + 1) ** constant``."""

    def __init__(self, count: int, rng: random.Random, *, constant: float = ZIPFIAN_CONSTANT) -> None:
        """Sum what ``count`` ranks weigh: 0.1 s for a million."""
        if count < 1:
            raise ValueError(f"there must be something to choose from, not {count} items")
        self._count = count
        self._random = rng.random
        self._alpha = 1.0 / (1.0 - constant)
        self._zeta = sum((rank + 1) ** -constant for rank in range(count))
        self._second = 1.0 + 0.5**constant
        self._eta = (1.0 - (2.0 / count) ** (1.0 - constant)) / (1.0 - self._second / self._zeta) if count > 2 else 0.0

    def __call__(self) -> int:
        """Return the next rank."""
        drawn = self._random()
        weighed = drawn * self._zeta
        if weighed < 1.0:
            return 0
        if weighed < self._second:
            return min(1, self._count - 1)
        rank = int(self._count * (self._eta * drawn - self._eta + 1.0) ** self._alpha)
        return rank if rank < self._count else self._count - 1


def scrambled(rank: int) -> int:
    """Return 64 bits that spread neighbouring ranks over the whole range (FNV-1a, as YCSB does)."""
    mixed = _FNV_OFFSET
    for _ in range(8):
        mixed = ((mixed ^ (rank & 0xFF)) * _FNV_PRIME) & 0xFFFFFFFFFFFFFFFF
        rank >>= 8
    return mixed


class Inserted:
    """Numbers for new items, which no other process gives, and how many of them were acknowledged.

    ``loaded`` items have the numbers below; process ``place`` of ``processes`` gives every ``processes``-th
    number from ``first`` on.
    """

    def __init__(self, *, loaded: int, first: int, place: int, processes: int) -> None:
        """Start with nothing inserted."""
        self.loaded = loaded
        self.acknowledged = 0
        self._first = first + place
        self._step = processes
        self._given = 0

    def give(self) -> int:
        """Return the next number."""
        self._given += 1
        return self._first + (self._given - 1) * self._step

    def from_latest(self, back: int) -> int:
        """Return the item that came ``back`` places before the latest, around the ends if there are not so many."""
        index = (self.loaded + self.acknowledged - 1 - back) % (self.loaded + self.acknowledged)
        return index if index < self.loaded else self._first + (index - self.loaded) * self._step


def chooser(choice: str, items: int, rng: random.Random, inserted: Inserted) -> Choose:
    """Return what draws from ``items`` items as ``choice`` says.

    The hot items of ``zipfian`` are anywhere in the key range, the same for each process: their ranks are scrambled.
    ``latest`` draws how far before the latest item that this process knows of, out of as many as were loaded.
    """
    if choice == "uniform":
        return lambda: int(rng.random() * items)
    ranks = Zipfian(items, rng)
    if choice == "zipfian":
        places: dict[int, int] = {}

        def scattered() -> int:
            rank = ranks()
            place = places.get(rank)
            if place is None:
                place = places[rank] = scrambled(rank) % items
            return place

        return scattered
    if choice == "latest":
        return lambda: inserted.from_latest(ranks())
    raise ValueError(f"items are chosen {', '.join(CHOICES)}, not {choice!r}")
