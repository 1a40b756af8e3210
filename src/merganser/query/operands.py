"""What operators and functions take, and which paths can be changed together; DynamoDB's checks and words.

Everything is looked at once its placeholders are filled in and before anything is evaluated: an operand that the
request gives must suit, one that comes from the item is found out when it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from merganser.query.inspection import FUNCTIONS
from merganser.query.syntax import (
    Action,
    Addition,
    Assignment,
    Between,
    Call,
    Comparison,
    Deletion,
    ExpressionError,
    In,
    Operand,
    Path,
    Sum,
    Value,
)
from merganser.query.values import ORDERED, PREFIXED, SETS, order_of

_ARITY: Final = {
    "attribute_exists": 1,
    "attribute_not_exists": 1,
    "attribute_type": 2,
    "begins_with": 2,
    "contains": 2,
    "size": 1,
    "if_not_exists": 2,
    "list_append": 2,
}
_OF_PATHS: Final = ("attribute_exists", "attribute_not_exists", "if_not_exists")
_NUMBER: Final = frozenset("N")
_STRING: Final = frozenset("S")
_LIST: Final = frozenset("L")
_SIZED: Final = frozenset(("S", "B", "SS", "NS", "BS", "L", "M"))
_ADDED: Final = SETS | _NUMBER
_RESULTS: Final = {"size": "N", "list_append": "L"}
_KINDS: Final = ("N", "BS", "L", "B", "NULL", "M", "S", "SS", "NS", "BOOL")  # as DynamoDB prints them
_KINDS_OF_PATHS: Final = "{NS,SS,L,BS,N,M,B,BOOL,NULL,S}"  # the same, of an operand that could have any
_LONG_NAMES: Final = {
    "S": "STRING",
    "N": "NUMBER",
    "B": "BINARY",
    "BOOL": "BOOLEAN",
    "NULL": "NULL",
    "L": "LIST",
    "M": "MAP",
    "SS": "STRING_SET",
    "NS": "NUMBER_SET",
    "BS": "BINARY_SET",
}


def check_leaf(leaf: Comparison | Between | In | Call) -> None:
    """Check one of the conditions that AND, OR and NOT connect.

    How many operands there are comes before what they are, also inside of the operands.
    """
    match leaf:
        case Comparison():
            check_comparison(leaf)
        case Between():
            _check_calls_in(leaf.operand, leaf.low, leaf.high)
            _check_between(leaf)
        case In(operand, choices):
            _check_calls_in(operand, *choices)
            _check_distinct("IN", operand, *choices)
        case Call():
            _check_calls_in(leaf)


def check_comparison(comparison: Comparison) -> None:
    """Check the most common of those conditions."""
    operator, left, right = comparison.operator, comparison.left, comparison.right
    if isinstance(left, Call) or isinstance(right, Call):
        _check_calls_in(left, right)
    _check_distinct(operator, left, right)
    if operator not in ("=", "<>"):
        _check_kinds(operator, ORDERED, left, right)


def _check_calls_in(*operands: Operand) -> None:
    calls = [call for operand in operands if isinstance(operand, Call) for call in _innermost_first(operand)]
    for call in calls:
        _check_arity(call)
    for call in calls:
        _check_call(call)


def _innermost_first(call: Call) -> list[Call]:
    inner = [one for operand in call.operands if isinstance(operand, Call) for one in _innermost_first(operand)]
    return [*inner, call]


def _check_between(between: Between) -> None:
    _check_distinct("BETWEEN", between.operand, between.low, between.high)
    _check_kinds("BETWEEN", ORDERED, between.operand, between.low, between.high)
    low, high = between.low, between.high
    if not isinstance(low, Value) or not isinstance(high, Value):
        return
    if low.kind != high.kind:
        raise ExpressionError(
            "The BETWEEN operator requires same data type for lower and upper bounds; "
            f"lower bound operand: {low}, upper bound operand: {high}"
        )
    if order_of(low.content) > order_of(high.content):
        raise ExpressionError(
            "The BETWEEN operator requires upper bound to be greater than or equal to lower bound; "
            f"lower bound operand: {low}, upper bound operand: {high}"
        )


def _check_arity(call: Call) -> None:
    if len(call.operands) != _ARITY[call.function]:
        raise ExpressionError(
            "Incorrect number of operands for operator or function; "
            f"operator or function: {call.function}, number of operands: {len(call.operands)}"
        )


def _check_call(call: Call) -> None:
    """Check the operands of a function, be it of conditions or of updates."""
    if call.function in FUNCTIONS:
        _check_distinct(call.function, *call.operands)
    if call.function in _OF_PATHS and not isinstance(call.operands[0], Path):
        raise ExpressionError(f"Operator or function requires a document path; operator or function: {call.function}")
    match call.function:
        case "begins_with":
            _check_kinds(call.function, PREFIXED, *call.operands)
        case "attribute_type":
            _check_type_name(call)
        case "size" | "contains":  # contains: from the documentation of the function, not seen in an answer
            _check_kinds(call.function, _SIZED, call.operands[0])
        case "list_append":
            _check_kinds(call.function, _LIST, *call.operands)


def check_actions(actions: Sequence[Action]) -> None:
    """Check what the actions of an update do with their operands, ADD and DELETE first."""
    for action in actions:
        if isinstance(action, Addition):
            _check_change("ADD", _ADDED, action.value)
        elif isinstance(action, Deletion):
            _check_change("DELETE", SETS, action.value)
    for action in actions:
        if isinstance(action, Assignment):
            value = action.value
            if isinstance(value, Sum):
                _check_calls(value.left, value.right)
                _check_kinds(value.operator, _NUMBER, value.left, value.right)
            else:
                _check_calls(value)


class _Place:
    """Where paths lead through, or end."""

    __slots__ = ("first", "is_end", "parts")

    def __init__(self, first: Path) -> None:
        self.first = first
        self.is_end = False
        self.parts: dict[str | int, _Place] = {}


def check_paths(paths: Sequence[Path]) -> None:
    """Check that paths can be changed, or shown, together.

    Raises:
        ExpressionError: one leads through another or to the same place, or takes for a list what another takes for
            a map.
    """
    if len(paths) < 2:
        return
    root = _Place(Path(()))
    conflict: ExpressionError | None = None  # told only if nothing overlaps
    for path in paths:
        place = root
        for part in path.parts:
            if place.is_end:
                raise _clash("overlap", place.first, path)
            if place.parts and isinstance(part, int) is not isinstance(next(iter(place.parts)), int):
                conflict = conflict or _clash("conflict", place.first, path)
            if part not in place.parts:
                place.parts[part] = _Place(path)
            place = place.parts[part]
        if place.is_end or place.parts:
            raise _clash("overlap", place.first, path)
        place.is_end = True
    if conflict is not None:
        raise conflict


def _clash(how: str, one: Path, two: Path) -> ExpressionError:
    return ExpressionError(
        f"Two document paths {how} with each other; must remove or rewrite one of these paths; "
        f"path one: {one}, path two: {two}"
    )


def _check_calls(*operands: Operand) -> None:
    for operand in operands:
        if isinstance(operand, Call):
            _check_calls(*operand.operands)
            _check_arity(operand)
            _check_call(operand)


def _check_change(operator: str, kinds: frozenset[str], operand: Operand) -> None:
    kind = _kind_of(operand)
    if kind not in kinds:
        raise ExpressionError(
            f"Incorrect operand type for operator or function; operator: {operator}, "
            f"operand type: {_LONG_NAMES[kind]}, typeSet: ALLOWED_FOR_{operator}_OPERAND"
        )


def _check_type_name(call: Call) -> None:
    kind = call.operands[1]
    if isinstance(kind, Path):
        raise _wrong_kind(call.function, _KINDS_OF_PATHS)
    _check_kinds(call.function, _STRING, kind)
    if isinstance(kind, Value) and kind.content["S"] not in _KINDS:
        raise ExpressionError(
            f"Invalid attribute type name found; type: {kind.content['S']}, valid types: {{{','.join(_KINDS)}}}"
        )


def _check_distinct(operator: str, first: Operand, *others: Operand) -> None:
    if isinstance(first, Path) and first in others:
        raise ExpressionError(
            "The first operand must be distinct from the remaining operands for this operator or function; "
            f"operator: {operator}, first operand: {first}"
        )


def _check_kinds(operator: str, kinds: frozenset[str], *operands: Operand) -> None:
    for operand in operands:
        kind = _kind_of(operand)
        if kind and kind not in kinds:
            raise _wrong_kind(operator, kind)


def _wrong_kind(operator: str, kind: str) -> ExpressionError:
    return ExpressionError(
        f"Incorrect operand type for operator or function; operator or function: {operator}, operand type: {kind}"
    )


def _kind_of(operand: Operand) -> str:
    """Return the type of an operand if it is known before there is an item, else an empty text."""
    if isinstance(operand, Value):
        return operand.kind
    return _RESULTS.get(operand.function, "") if isinstance(operand, Call) else ""
