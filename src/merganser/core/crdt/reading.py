"""What a row of values that merge themselves reads as.

A value is there as long as something of it is: a set has an element, a map a field, a counter an update that no reset
had seen. Where two clients who did not know of one another have written, a register shows what was written last, a
multi-register all of it, a flag is on if one of them enabled it, and a disable-flag is off if one disabled it.
"""

from __future__ import annotations

from collections.abc import Iterable

from merganser.core import causal_rows
from merganser.core.crdt import counters, sketch, types
from merganser.model import crdt
from merganser.model.crdt import Field, Shown
from merganser.model.row import Cell, Row

_ON = b"\x01"


def values(row: Row | None) -> list[Shown]:
    """Return what a key reads as: one value, or none, or one of each type that clients made of it at once."""
    return [] if row is None else values_at(row.cells, b"")


def is_there(row: Row | None) -> bool:
    """Tell whether a key reads as anything: what is left of a counter is no value."""
    return row is not None and bool(types_at(row.cells, b""))


def values_at(cells: Iterable[Cell], begin: bytes) -> list[Shown]:
    """Return the values, by type, whose tags stand right after ``begin`` in the paths of ``cells``."""
    found = [_shown(types.NAMES[tag], begin + bytes((tag,)), held) for tag, held in _by_tag(cells, begin)]
    return [shown for shown in found if shown is not None]


def types_at(cells: Iterable[Cell], begin: bytes) -> list[str]:
    """Return the types of these values."""
    by_tag = _by_tag(cells, begin)
    return [types.NAMES[tag] for tag, held in by_tag if _is_there(tag, begin + bytes((tag,)), held)]


def number(cell: Cell) -> int:
    """Return what a cell of a `max` or `min` says."""
    return int.from_bytes(cell.value or b"", signed=True)


def _by_tag(cells: Iterable[Cell], begin: bytes) -> list[tuple[int, list[Cell]]]:
    found: dict[int, list[Cell]] = {}
    at = len(begin)
    for cell in types.shared(cells, begin):
        found.setdefault(cell.name[at], []).append(cell)
    return [(tag, found[tag]) for tag in sorted(found) if tag in types.NAMES]


def _is_there(tag: int, begin: bytes, cells: list[Cell]) -> bool:
    if counters.is_counter(tag):
        return counters.State(begin, cells).total().updates > 0
    if tag != types.TAGS[crdt.MAP]:
        return True
    return any(types_at(held, begin + types.path_to((name,))[1:]) for name, held in _by_name(begin, cells).items())


def _shown(kind: str, begin: bytes, cells: list[Cell]) -> Shown | None:
    """Return the value of one type that all of ``cells``, of which there are some, belong to; None if it is gone."""
    at = len(begin)
    if kind in (crdt.COUNTER, crdt.GROW_COUNTER):
        total = counters.State(begin, cells).total()
        return Shown(kind, total.up - total.down) if total.updates else None
    if kind == crdt.MAP:
        return _map(begin, cells)
    if kind == crdt.SET:
        return Shown(kind, tuple(sorted({causal_rows.path_of(cell)[at:] for cell in cells})))
    if kind == crdt.REGISTER:
        return Shown(kind, max(cells, key=causal_rows.dot_of).value or b"")
    if kind == crdt.MULTI_REGISTER:
        return Shown(kind, tuple(sorted({cell.value or b"" for cell in cells})))
    if kind in (crdt.FLAG, crdt.DISABLE_FLAG):
        said = [cell.value == _ON for cell in cells]
        return Shown(kind, any(said) if kind == crdt.FLAG else all(said))
    if kind == crdt.DISTINCT:
        return Shown(kind, sketch.estimate(list(registers(begin, cells).values())))
    numbers = map(number, cells)
    return Shown(kind, max(numbers) if kind == crdt.MAXIMUM else min(numbers))


def registers(begin: bytes, cells: Iterable[Cell]) -> dict[bytes, int]:
    """Return the registers of a sketch, and how far they were raised."""
    found: dict[bytes, int] = {}
    for cell in cells:
        register = causal_rows.path_of(cell)[len(begin) :]
        found[register] = max(found.get(register, 0), number(cell))
    return found


def _map(begin: bytes, cells: list[Cell]) -> Shown | None:
    by_name = _by_name(begin, cells)
    fields = [
        Field(name, shown)
        for name in sorted(by_name)
        for shown in values_at(by_name[name], begin + types.path_to((name,))[1:])
    ]
    return Shown(crdt.MAP, tuple(fields)) if fields else None


def _by_name(begin: bytes, cells: Iterable[Cell]) -> dict[bytes, list[Cell]]:
    """Return the cells of each field of the map whose paths begin with ``begin``."""
    found: dict[bytes, list[Cell]] = {}
    for cell in cells:
        found.setdefault(types.split_field(cell.name, len(begin))[0], []).append(cell)
    return found
