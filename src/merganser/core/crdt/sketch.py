"""How many different elements there were, at a standard error of 2.3 %, in 2,048 registers that merge by their maximum.

Each element is hashed; some bits of the hash choose a register, and the register keeps the longest run of zeros that
the others of its elements began with, plus one. A register is a cell like that of a `max`, so an element that raises
none changes nothing, one that raises one sends one cell, and a reset takes away what it had seen and nothing else.

The estimate is Ertl's, which needs no tables and no change of method between few and many. Libraries
of such sketches keep them as one blob each, whose merge is the library's: a delta would be the whole sketch, and a
reset could not tell what it had seen (docs/adr/0019).

Source: Flajolet, Fusy, Gandouet, Meunier 2007, "HyperLogLog"; Ertl 2017, "New cardinality estimation algorithms for
HyperLogLog sketches", algorithm 6.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import mmh3

BITS = 11
REGISTERS = 1 << BITS
_RUN_BITS = 64 - BITS
RUN_MAX = _RUN_BITS + 1


def place_of(element: bytes) -> tuple[int, int]:
    """Return the register of an element, and what it raises it to: 1 to `RUN_MAX`."""
    hashed = mmh3.mmh3_x64_128_utupledigest(element, 0)[1]  # the first half is a key's token, which others may choose
    rest = hashed & ((1 << _RUN_BITS) - 1)
    return hashed >> _RUN_BITS, _RUN_BITS - rest.bit_length() + 1


def estimate(registers: Collection[int]) -> int:
    """Return about how many different elements raised these registers; others are at 0."""
    counts = [0] * (RUN_MAX + 1)
    for run in registers:
        counts[run] += 1
    counts[0] += REGISTERS - len(registers)
    if counts[0] == REGISTERS:
        return 0
    z = REGISTERS * _tau(1 - counts[RUN_MAX] / REGISTERS)
    for run in range(RUN_MAX - 1, 0, -1):
        z = (z + counts[run]) / 2
    z += REGISTERS * _sigma(counts[0] / REGISTERS)
    return round(REGISTERS * REGISTERS / (2 * math.log(2) * z))


def _sigma(x: float) -> float:
    y, z, before = 1.0, x, -1.0
    while z != before:
        x *= x
        before = z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in (0.0, 1.0):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x = math.sqrt(x)
        before = z
        y /= 2
        z -= (1 - x) ** 2 * y
    return z / 3
