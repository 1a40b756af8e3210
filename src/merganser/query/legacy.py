"""The parameters of the time before expressions, made into the trees that expressions become.

Expected, QueryFilter and ScanFilter are lists of `Check`, KeyConditions too; AttributeUpdates is a list of `Change`.
From here on there is no difference: what evaluates expressions evaluates these. An attribute is named by its whole
name, dots and all: there are no paths into it.

Of an attribute that is not there, only NULL, NE and NOT_CONTAINS hold.

Source: Amazon DynamoDB Developer Guide, "Legacy conditional parameters"; API reference, Condition,
ExpectedAttributeValue and AttributeValueUpdate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from merganser.query.key_condition import AttributeCondition
from merganser.query.syntax import (
    Action,
    Addition,
    Assignment,
    Between,
    Both,
    Call,
    Comparison,
    Condition,
    Deletion,
    Either,
    In,
    Not,
    Path,
    Removal,
    Section,
    Update,
    Value,
)
from merganser.query.values import AttributeValue, kind_of

TYPE_MISMATCH: Final = "Type mismatch for attribute to update"
"""What is said of an item that an ADD or DELETE does not suit; of an UpdateExpression it is said in other words."""

_COMPARATORS: Final = {"EQ": "=", "NE": "<>", "LT": "<", "LE": "<=", "GT": ">", "GE": ">="}
_KEY_OPERATORS: Final = {
    "EQ": "=",
    "LT": "<",
    "LE": "<=",
    "GT": ">",
    "GE": ">=",
    "BETWEEN": "BETWEEN",
    "BEGINS_WITH": "begins_with",
}
_NO_LIST: Final = Value({"L": []})


class Check(msgspec.Struct, frozen=True, array_like=True):
    """What one attribute must be."""

    attribute: str
    operator: str
    """ComparisonOperator."""
    operands: tuple[AttributeValue, ...] = ()
    """In normal form; as many and of such types as the operator takes."""


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What becomes of one attribute."""

    attribute: str
    action: str
    """PUT, ADD or DELETE."""
    value: AttributeValue | None = None
    """In normal form; None only to DELETE all of it."""


def condition_of(checks: Sequence[Check], *, any_of: bool = False) -> Condition:
    """Return the condition that all of at least one check must hold, or ``any_of`` them.

    The tree is as flat as can be: there is no bound on checks, and conditions are evaluated by recursion.
    """
    if len(checks) == 1:
        return _condition(checks[0])
    middle = len(checks) // 2
    left, right = condition_of(checks[:middle], any_of=any_of), condition_of(checks[middle:], any_of=any_of)
    return Either(left, right) if any_of else Both(left, right)


def update_of(changes: Sequence[Change]) -> Update:
    """Return the update that does all changes, of which no two are of one attribute."""
    sections: dict[str, list[Action]] = {}
    for change in changes:
        keyword, action = _action(change)
        sections.setdefault(keyword, []).append(action)
    return Update(tuple([Section(keyword, tuple(actions)) for keyword, actions in sections.items()]))


def key_conditions_of(checks: Sequence[Check]) -> dict[str, AttributeCondition]:
    """Return the conditions of a Query by attribute; operators that no key condition has keep their names."""
    return {
        check.attribute: AttributeCondition(_KEY_OPERATORS.get(check.operator, check.operator), check.operands)
        for check in checks
    }


def paths_of(attributes: Sequence[str]) -> tuple[Path, ...]:
    """Return the paths of an AttributesToGet."""
    return tuple([Path((attribute,)) for attribute in attributes])


def _condition(check: Check) -> Condition:
    path, operands = Path((check.attribute,)), tuple(map(Value, check.operands))
    if check.operator in _COMPARATORS:
        return Comparison(_COMPARATORS[check.operator], path, operands[0])
    return _CONDITIONS[check.operator](path, operands)


def _between(path: Path, operands: tuple[Value, ...]) -> Condition:
    low, high = operands
    return Between(path, low, high)


def _contains(path: Path, operands: tuple[Value, ...]) -> Condition:
    return Call("contains", (path, *operands))


def _contains_not(path: Path, operands: tuple[Value, ...]) -> Condition:
    return Not(_contains(path, operands))


_CONDITIONS: Final[Mapping[str, Callable[[Path, tuple[Value, ...]], Condition]]] = {
    "IN": In,
    "BETWEEN": _between,
    "NOT_NULL": lambda path, _: Call("attribute_exists", (path,)),
    "NULL": lambda path, _: Call("attribute_not_exists", (path,)),
    "BEGINS_WITH": lambda path, operands: Call("begins_with", (path, *operands)),
    "CONTAINS": _contains,
    "NOT_CONTAINS": _contains_not,
}


def _action(change: Change) -> tuple[str, Action]:
    path = Path((change.attribute,))
    if change.value is None:
        return "REMOVE", Removal(path)
    value = Value(change.value)
    if change.action == "PUT":
        return "SET", Assignment(path, value)
    if change.action == "DELETE":
        return "DELETE", Deletion(path, value)
    if kind_of(change.value) == "L":  # which ADD of an expression does not take
        return "SET", Assignment(path, Call("list_append", (Call("if_not_exists", (path, _NO_LIST)), value)))
    return "ADD", Addition(path, value)
