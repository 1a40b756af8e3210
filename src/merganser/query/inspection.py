"""What the text of an expression alone decides: functions, reserved words, and how much of everything there is.

DynamoDB looks for one thing after the other, each time in the whole expression: in a condition first for functions it
does not know, then for functions that stand where they may not, then for reserved words; in an update for reserved
words first. `binding` looks at names and values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from merganser.query.reserved_words import is_reserved
from merganser.query.syntax import (
    Action,
    Assignment,
    Between,
    Both,
    Call,
    Comparison,
    Condition,
    Either,
    ExpressionError,
    In,
    Not,
    Operand,
    Path,
    Removal,
    Sum,
    Update,
)

OPERATORS_MAX: Final = 300
CHOICES_MAX: Final = 100
"""Operands in the parentheses of IN."""
LEVELS_MAX: Final = 32
"""Elements of a path; no item is deeper."""
INDEX_MAX: Final = 2**31 - 1
"""Far beyond the longest list that fits into an item."""

FUNCTIONS: Final = frozenset(
    ("attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains", "size")
)
UPDATE_FUNCTIONS: Final = frozenset(("if_not_exists", "list_append"))

_Leaf = Comparison | Between | In | Call


def inspect_condition(tree: Condition) -> None:
    """Look through a condition.

    Raises:
        ExpressionError: of what is wrong with it, what DynamoDB finds first.
    """
    leaves: list[_Leaf] = []
    connectives = _collect(tree, leaves)
    operands = [operand for leaf in leaves for operand in _operands_of(leaf)]
    nested = [operand for operand in _all_of(operands) if isinstance(operand, Call)]
    _check_count(connectives + len(leaves) + len(nested))
    for call in [leaf for leaf in leaves if isinstance(leaf, Call)] + nested:
        _check_known(call)
    for leaf in leaves:
        _check_uses(leaf)
        if isinstance(leaf, Call) and leaf.function == "size":
            raise _misused(leaf)
    for operand in _all_of(operands):
        if isinstance(operand, Path):
            _check_path(operand)
    for leaf in leaves:
        if isinstance(leaf, In) and len(leaf.choices) > CHOICES_MAX:
            raise ExpressionError(
                f"The IN operator is provided with too many operands; number of operands: {len(leaf.choices)}"
            )


def inspect_update(tree: Update) -> None:
    """Look through an update.

    Raises:
        ExpressionError: of what is wrong with it, what DynamoDB finds first.
    """
    operands = [operand for action in tree.actions for operand in _all_of(_parts_of(action))]
    calls = [operand for operand in operands if isinstance(operand, Call)]
    sums = [action for action in tree.actions if isinstance(action, Assignment) and isinstance(action.value, Sum)]
    _check_count(len(calls) + len(sums))
    for operand in operands:
        if isinstance(operand, Path):
            _check_path(operand)
    for call in calls:
        _check_known(call)
        if call.function in FUNCTIONS:
            raise ExpressionError(f"The function is not allowed in an update expression; function: {call.function}")
    keywords = [section.keyword for section in tree.sections]
    for number, keyword in enumerate(keywords):
        if keyword in keywords[:number]:
            raise ExpressionError(f'The "{keyword}" section can only be used once in an update expression;')


def inspect_paths(paths: Sequence[Path]) -> None:
    """Look through a projection.

    Raises:
        ExpressionError: a path is too long, or names a reserved word.
    """
    for path in paths:
        _check_path(path)


def _collect(tree: Condition, leaves: list[_Leaf]) -> int:
    """Add the conditions that AND, OR and NOT connect, and return how many of those there are."""
    match tree:
        case Both(left, right) | Either(left, right):
            return _collect(left, leaves) + 1 + _collect(right, leaves)
        case Not(inner):
            return 1 + _collect(inner, leaves)
    leaves.append(tree)
    return 0


def _operands_of(leaf: _Leaf) -> tuple[Operand, ...]:
    match leaf:
        case Comparison(_, left, right):
            return left, right
        case Between(operand, low, high):
            return operand, low, high
        case In(operand, choices):
            return operand, *choices
        case Call(_, operands):
            return operands


def _parts_of(action: Action) -> tuple[Operand, ...]:
    if isinstance(action, Removal):
        return (action.path,)
    if isinstance(action.value, Sum):
        return action.path, action.value.left, action.value.right
    return action.path, action.value


def _all_of(operands: Sequence[Operand]) -> Iterator[Operand]:
    """Yield operands and what is inside of them, from left to right."""
    for operand in operands:
        yield operand
        if isinstance(operand, Call):
            yield from _all_of(operand.operands)


def _check_count(operators: int) -> None:
    if operators > OPERATORS_MAX:
        raise ExpressionError(f"The expression contains too many operators; operator count: {OPERATORS_MAX + 1}")


def _check_known(call: Call) -> None:
    if call.function not in FUNCTIONS | UPDATE_FUNCTIONS:
        raise ExpressionError(f"Invalid function name; function: {call.function}")


def _check_uses(leaf: _Leaf) -> None:
    """Check where the functions of a condition stand, the innermost first: only size gives what others can take."""
    for operand in _operands_of(leaf):
        if isinstance(operand, Call):
            _check_uses(operand)
            if operand.function != "size":
                raise _misused(operand)
    if isinstance(leaf, Call) and leaf.function in UPDATE_FUNCTIONS:
        raise ExpressionError(f"The function is not allowed in a condition expression; function: {leaf.function}")


def _check_path(path: Path) -> None:
    for part in path.parts:
        if isinstance(part, int):
            if part > INDEX_MAX:
                raise ExpressionError(f"List index is not within the allowable range; index: [{part}]")
        elif not part.startswith("#") and is_reserved(part):
            raise ExpressionError(f"Attribute name is a reserved keyword; reserved keyword: {part}")
    if len(path.parts) > LEVELS_MAX:
        raise ExpressionError(f"The document path has too many nesting elements; nesting levels: {len(path.parts)}")


def _misused(call: Call) -> ExpressionError:
    return ExpressionError(
        f"The function is not allowed to be used this way in an expression; function: {call.function}"
    )
