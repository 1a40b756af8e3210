"""How values that merge themselves are named in the cells of a row, what each type takes, and how large things may be.

The path of a cell (its name before the dot) begins with a tag that names the type, so that values of two types under
one name are two values, which can both come to be when two clients make them at once::

    counter, grow-counter   tag chain session(20)     or  tag floors                (`counters`)
    set                     tag element
    map                     tag length(2) name, and then the path of the field's value
    registers, flags        tag
    distinct                tag register(2)                                         (`sketch`)
    max, min                tag

Tags are 0xC1 and above. The path of a sibling is empty, and its dot begins with a zero: rows of the two kinds can be
told apart by a look at any cell.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from merganser.core import causal_rows
from merganser.model import crdt
from merganser.model.crdt import Operation
from merganser.model.errors import RequestError
from merganser.model.row import Cell, Row
from merganser.model.shown import shown

TAGS: Final[dict[str, int]] = {
    crdt.COUNTER: 0xC1,
    crdt.GROW_COUNTER: 0xC2,
    crdt.SET: 0xC3,
    crdt.MAP: 0xC4,
    crdt.REGISTER: 0xC5,
    crdt.MULTI_REGISTER: 0xC6,
    crdt.FLAG: 0xC7,
    crdt.DISABLE_FLAG: 0xC8,
    crdt.DISTINCT: 0xC9,
    crdt.MAXIMUM: 0xCA,
    crdt.MINIMUM: 0xCB,
}
NAMES: Final[dict[int, str]] = {tag: name for name, tag in TAGS.items()}
SESSIONS: Final = 0xCF
"""The tag of cells that are no values: which updates have been made (`counters`)."""
FIRST_TAG: Final = 0xC1

RESET: Final = "reset"
ACTIONS: Final[dict[str, dict[str, type | None]]] = {
    crdt.COUNTER: {"increment": int, "decrement": int},
    crdt.GROW_COUNTER: {"increment": int},
    crdt.SET: {"add": bytes, "remove": bytes},
    crdt.MAP: {},
    crdt.REGISTER: {"assign": bytes},
    crdt.MULTI_REGISTER: {"assign": bytes},
    crdt.FLAG: {"enable": None, "disable": None},
    crdt.DISABLE_FLAG: {"enable": None, "disable": None},
    crdt.DISTINCT: {"add": bytes},
    crdt.MAXIMUM: {"raise": int},
    crdt.MINIMUM: {"lower": int},
    crdt.ANY: {},
}
"""What each action takes; each type can be reset, too."""

OPERATIONS_MAX = 100
"""Of one update, which is one row on its way."""
DEPTH_MAX = 8
NAME_BYTES_MAX = 255
ELEMENT_BYTES_MAX = 4096
"""Of a set, where it is part of the name of a cell."""
VALUE_BYTES_MAX = 1024 * 1024
KEY_BYTES_MAX = 8 * 1024 * 1024
"""Of all that a key holds: it is read, merged and stored as a whole."""
NUMBER_MAX = 2**63 - 1

_LENGTH = struct.Struct(">H")
_CELL_BYTES = 32
"""That a cell takes beside its name and value, at most."""


def check(operations: Iterable[Operation]) -> None:
    """Return if ``operations`` can be made of some value.

    Raises:
        RequestError: they cannot; says what is wrong with which.
    """
    count = size = 0
    for count, operation in enumerate(operations, start=1):
        if count > OPERATIONS_MAX:
            raise RequestError(
                f"more than {OPERATIONS_MAX} operations in one update, of which each element is one: split it"
            )
        _check(operation)
        size += len(operation.value) if isinstance(operation.value, bytes) else 0
        if size > KEY_BYTES_MAX:
            raise RequestError(f"an update of more than {KEY_BYTES_MAX:,} bytes, which is all that a key can hold")
    if not count:
        raise RequestError("an update without an operation")


def of_cell(cell: Cell) -> bool:
    """Tell whether a cell of a causal row belongs to values that merge themselves."""
    return cell.name[0] >= FIRST_TAG


def path_to(names: Iterable[bytes]) -> bytes:
    """Return the beginning of the paths of what the fields ``names`` lead to."""
    map_tag = TAGS[crdt.MAP]
    return b"".join([bytes((map_tag,)) + _LENGTH.pack(len(name)) + name for name in names])


def path_of(operation: Operation) -> bytes:
    """Return the beginning of the paths of the value that ``operation`` is about; of any type, where it names none."""
    there = path_to(operation.path)
    return there if operation.type == crdt.ANY else there + bytes((TAGS[operation.type],))


def split_field(path: bytes, at: int) -> tuple[bytes, int]:
    """Return the name of the field that a path goes through after the tag of a map before ``at``, and where it ends."""
    begin = at + _LENGTH.size
    end = begin + int(_LENGTH.unpack_from(path, at)[0])
    return path[begin:end], end


def size_of(row: Row) -> int:
    """Return how many bytes a row takes, more or less."""
    return sum(len(cell.name) + len(cell.value or b"") + _CELL_BYTES for cell in row.cells)


def shared(cells: Iterable[Cell], begin: bytes) -> list[Cell]:
    """Return those cells whose path begins with ``begin``."""
    least = len(begin) + causal_rows.DOT_BYTES
    return [cell for cell in cells if len(cell.name) >= least and cell.name.startswith(begin)]


def _check(operation: Operation) -> None:
    actions = ACTIONS.get(operation.type)
    if actions is None:
        raise RequestError(f"there is no type {operation.type[:40]!r}: choose one of {', '.join(TAGS)}")
    if operation.action != RESET and operation.action not in actions:
        raise RequestError(
            f"a {operation.type} has no action {operation.action[:40]!r}: choose one of {', '.join((*actions, RESET))}"
        )
    _check_path(operation.path)
    _check_value(operation, None if operation.action == RESET else actions[operation.action])


def _check_path(path: tuple[bytes, ...]) -> None:
    if len(path) > DEPTH_MAX:
        raise RequestError(f"{len(path)} fields deep, of {DEPTH_MAX} at most")
    for name in path:
        if not 1 <= len(name) <= NAME_BYTES_MAX:
            raise RequestError(f"the name of a field must be 1 to {NAME_BYTES_MAX} bytes, not {len(name):,}")


def _check_value(operation: Operation, kind: type | None) -> None:
    value, what = operation.value, f"{operation.action} of a {operation.type}"
    if kind is None:
        if value is not None:
            raise RequestError(f"{what} takes no value")
    elif kind is int:
        if type(value) is not int:
            raise RequestError(f"{what} takes a whole number, not {value!r:.80}")
        lowest = 1 if operation.type in (crdt.COUNTER, crdt.GROW_COUNTER) else -NUMBER_MAX - 1
        if not lowest <= value <= NUMBER_MAX:
            raise RequestError(f"{what} takes a number from {lowest} to {NUMBER_MAX}, not {shown(value, 40)}")
    elif not isinstance(value, bytes):
        raise RequestError(f"{what} takes bytes, not {value!r:.80}")
    else:
        most = ELEMENT_BYTES_MAX if operation.type == crdt.SET else VALUE_BYTES_MAX
        if len(value) > most:
            raise RequestError(f"{what} takes {most:,} bytes at most, not {len(value):,}")
