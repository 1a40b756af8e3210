"""Which paths a condition or an update mentions."""

from __future__ import annotations

from collections.abc import Iterator

from merganser.query.syntax import (
    Assignment,
    Between,
    Both,
    Call,
    Comparison,
    Condition,
    Either,
    In,
    Not,
    Operand,
    Path,
    Sum,
    Update,
)


def paths_in(condition: Condition) -> Iterator[Path]:
    """Yield every path of a condition, as often as it stands there, from left to right."""
    match condition:
        case Both(left, right) | Either(left, right):
            yield from paths_in(left)
            yield from paths_in(right)
        case Not(inner):
            yield from paths_in(inner)
        case Comparison(_, left, right):
            yield from _paths_of(left, right)
        case Between(operand, low, high):
            yield from _paths_of(operand, low, high)
        case In(operand, choices):
            yield from _paths_of(operand, *choices)
        case Call(_, operands):
            yield from _paths_of(*operands)


def paths_of_update(update: Update) -> Iterator[Path]:
    """Yield every path of an update, as often as it stands there, from left to right."""
    for action in update.actions:
        yield action.path
        if isinstance(action, Assignment):
            value = action.value
            yield from _paths_of(*((value.left, value.right) if isinstance(value, Sum) else (value,)))


def _paths_of(*operands: Operand) -> Iterator[Path]:
    for operand in operands:
        if isinstance(operand, Path):
            yield operand
        elif isinstance(operand, Call):
            yield from _paths_of(*operand.operands)
