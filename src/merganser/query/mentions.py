"""Which paths a condition mentions."""

from __future__ import annotations

from collections.abc import Iterator

from merganser.query.syntax import Between, Both, Call, Comparison, Condition, Either, In, Not, Operand, Path


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


def _paths_of(*operands: Operand) -> Iterator[Path]:
    for operand in operands:
        if isinstance(operand, Path):
            yield operand
        elif isinstance(operand, Call):
            yield from _paths_of(*operand.operands)
