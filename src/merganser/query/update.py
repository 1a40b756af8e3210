"""What an UpdateExpression makes of an item.

Every operand is read from the item as it was, and only then is anything changed: the order of the actions does not
matter, and list indexes are those of the list as it was. An index beyond the end of a list appends, and of several the
lower comes first.

Results are exact and not in normal form: whoever stores them brings them there, and finds numbers that are too large
or too precise, and items that are too large or too deep.

Source: Amazon DynamoDB Developer Guide, "Update expressions". ADD and DELETE of nested attributes, which the guide
rules out and the service takes, are taken.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from merganser.query.documents import Branches, Item, branches_of, value_at
from merganser.query.syntax import (
    Action,
    Addition,
    Assignment,
    Call,
    Deletion,
    ExpressionError,
    Operand,
    Path,
    Removal,
    Sum,
    Update,
    Value,
)
from merganser.query.values import AttributeValue, bulk_of, kind_of

_EXACT: Final = decimal.Context(prec=400)  # between 9.9E+125 and 1E-167 lie 293 digits

TOO_LARGE: Final = "Item size to update has exceeded the maximum allowed size"
WRONG_TYPE: Final = "An operand in the update expression has an incorrect data type"
_MISSING = "The provided expression refers to an attribute that does not exist in the item"
_WRONG_PATH = "The document path provided in the update expression is invalid for update"


def updated(update: Update, item: Item, *, bytes_max: int) -> dict[str, Any]:
    """Return an item after an update, its placeholders filled in; {} stands for one that is not there.

    Args:
        update: what to do.
        item: stays as it is; what is not changed is shared with the result.
        bytes_max: of an item. What is certainly larger is not even made: one attribute, named 300 times, makes
            hundreds of megabytes.

    Raises:
        ExpressionError: the item is not made for it, or becomes too large; the message is whole.
    """
    changes = []
    left = bytes_max
    for action in update.actions:
        result = _result(action, item, bytes_max)
        if result is not None and "N" not in result:
            left -= bulk_of(result)
            if left < 0:
                raise ExpressionError(TOO_LARGE)
        changes.append((action.path, _End(result)))
    return _members_with(item, branches_of(changes))


def removes_only(update: Update) -> bool:
    """Tell whether an update only takes away: then it makes no item where there is none.

    That DynamoDB does so is documented of the DELETE of AttributeUpdates, and unverified of REMOVE and DELETE.
    """
    return bool(update.sections) and all(isinstance(action, Removal | Deletion) for action in update.actions)


class _End:
    """What is to be at the end of a path, None: nothing."""

    __slots__ = ("value",)

    def __init__(self, value: AttributeValue | None) -> None:
        self.value = value


def _result(action: Action, item: Item, bytes_max: int) -> AttributeValue | None:
    if isinstance(action, Removal):
        return None
    value = action.value
    if isinstance(value, Sum):
        return _sum(
            _operand(value.left, item, bytes_max),
            _operand(value.right, item, bytes_max),
            is_difference=value.operator == "-",
        )
    if isinstance(action, Assignment):
        return _operand(value, item, bytes_max)
    change = _added if isinstance(action, Addition) else _deleted
    return change(value_at(item, action.path), _operand(value, item, bytes_max))


def _operand(operand: Operand, item: Item, bytes_max: int) -> AttributeValue:
    if isinstance(operand, Value):
        return operand.content
    if isinstance(operand, Call):
        left, right = operand.operands
        if operand.function == "list_append":
            return _appended(_operand(left, item, bytes_max), _operand(right, item, bytes_max), bytes_max)
        assert isinstance(left, Path)  # of if_not_exists; binding sees to it
        value = value_at(item, left)
        return _operand(right, item, bytes_max) if value is None else value
    assert isinstance(operand, Path)
    value = value_at(item, operand)
    if value is None:
        raise ExpressionError(_MISSING)
    return value


def _sum(left: AttributeValue, right: AttributeValue, *, is_difference: bool = False) -> AttributeValue:
    if "N" not in left or "N" not in right:
        raise ExpressionError(WRONG_TYPE)
    combine = _EXACT.subtract if is_difference else _EXACT.add
    return {"N": str(combine(Decimal(left["N"]), Decimal(right["N"])))}


def _appended(left: AttributeValue, right: AttributeValue, bytes_max: int) -> AttributeValue:
    if "L" not in left or "L" not in right:
        raise ExpressionError(WRONG_TYPE)
    if len(left["L"]) + len(right["L"]) > bytes_max:
        raise ExpressionError(TOO_LARGE)
    return {"L": left["L"] + right["L"]}


def _added(current: AttributeValue | None, value: AttributeValue) -> AttributeValue:
    kind = kind_of(value)
    if current is None:
        return value
    if kind not in current:
        raise ExpressionError(WRONG_TYPE)
    if kind == "N":
        return _sum(current, value)
    there = set(current[kind])
    return {kind: current[kind] + [member for member in value[kind] if member not in there]}


def _deleted(current: AttributeValue | None, value: AttributeValue) -> AttributeValue | None:
    kind = kind_of(value)
    if current is None:
        return None
    if kind not in current:
        raise ExpressionError(WRONG_TYPE)
    gone = set(value[kind])
    left = [member for member in current[kind] if member not in gone]
    return {kind: left} if left else None  # no set is empty


def _members_with(members: Mapping[str, Any], branches: Branches) -> dict[str, Any]:
    changed = dict(members)
    for name, branch in branches.items():
        if not isinstance(branch, _End):
            changed[name] = _inside_with(members.get(name), branch)
        elif branch.value is None:
            changed.pop(name, None)
        else:
            changed[name] = branch.value
    return changed


def _inside_with(value: AttributeValue | None, branches: Branches) -> AttributeValue:
    if isinstance(next(iter(branches)), str):
        members = None if value is None else value.get("M")
        if members is not None:
            return {"M": _members_with(members, branches)}
    else:
        elements = None if value is None else value.get("L")
        if elements is not None:
            return {"L": _elements_with(elements, branches)}
    raise ExpressionError(_WRONG_PATH)


def _elements_with(elements: list[Any], branches: Branches) -> list[Any]:
    changed = list(elements)
    removed = []
    for index in sorted(branches):
        branch = branches[index]
        is_there = index < len(elements)
        if not isinstance(branch, _End):
            changed[index] = _inside_with(elements[index] if is_there else None, branch)
        elif branch.value is None:
            removed += [index] if is_there else []
        elif is_there:
            changed[index] = branch.value
        else:
            changed.append(branch.value)
    for index in reversed(removed):
        del changed[index]
    return changed
