"""The parameters of the time before expressions: DynamoDB's checks, and what they come to (`query.legacy`).

Expected (with ConditionalOperator), AttributeUpdates, KeyConditions, QueryFilter, ScanFilter, AttributesToGet. They
may not stand beside expressions (`expressions.check_parameters`), but for KeyConditions, which may stand beside
FilterExpression and ProjectionExpression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from merganser.query.legacy import Change, Check
from merganser.query.values import ORDERED, PREFIXED, SETS, AttributeValue, kind_of, order_of
from merganser.wire.dynamodb.attributes import normalise_value
from merganser.wire.dynamodb.constraints import Violations, shown
from merganser.wire.dynamodb.errors import ValidationError

NAMES_MAX: Final = 255
"""In AttributesToGet."""

_PARAMETERS: Final = frozenset(
    ("AttributesToGet", "AttributeUpdates", "Expected", "KeyConditions", "QueryFilter", "ScanFilter")
)
_INVALID: Final = "One or more parameter values were invalid: "
_ARITY: Final[Mapping[str, tuple[int, int | None]]] = {
    "NULL": (0, 0),
    "NOT_NULL": (0, 0),
    "IN": (1, None),
    "BETWEEN": (2, 2),
}
_ONE: Final = (1, 1)
_KINDS: Final[Mapping[str, frozenset[str]]] = {
    "LE": ORDERED,
    "LT": ORDERED,
    "GE": ORDERED,
    "GT": ORDERED,
    "CONTAINS": ORDERED,
    "NOT_CONTAINS": ORDERED,
    "IN": ORDERED,
    "BETWEEN": ORDERED,
    "BEGINS_WITH": PREFIXED,
}
"""Types of operands; operators that are not here take any."""
_ADDED: Final = SETS | {"N", "L"}


def check_constraints(violations: Violations, request: Mapping[str, Any]) -> None:
    """Collect what breaks the constraints of the API's model, whichever of the parameters a request has."""
    if _PARAMETERS.isdisjoint(request):
        return
    for name in ("QueryFilter", "ScanFilter", "KeyConditions"):
        for attribute, condition in (request.get(name) or {}).items():
            at = f"{name[0].lower()}{name[1:]}.{attribute}.member."
            if violations.required(condition or {}, "ComparisonOperator", at):
                violations.enum(condition, "ComparisonOperator", at)
    for attribute, expected in (request.get("Expected") or {}).items():
        violations.enum(expected or {}, "ComparisonOperator", f"expected.{attribute}.member.")
    for attribute, change in (request.get("AttributeUpdates") or {}).items():
        violations.enum(change or {}, "Action", f"attributeUpdates.{attribute}.member.")
    check_names(violations, request)


def check_names(violations: Violations, request: Mapping[str, Any], prefix: str = "") -> None:
    """Collect what is wrong with AttributesToGet."""
    names = request.get("AttributesToGet")
    if names is not None:
        at = f"{prefix}attributesToGet"
        if not 1 <= len(names) <= NAMES_MAX:
            violations.length(shown(names), len(names), at, least=1, most=NAMES_MAX)
        for number, name in enumerate(names, start=1):
            if name is None:
                violations.add(None, f"{at}.{number}.member", "Member must not be null")


def names_in(request: Mapping[str, Any]) -> tuple[str, ...]:
    """Return AttributesToGet.

    Raises:
        ValidationError: a name is there twice.
    """
    names = tuple(request.get("AttributesToGet") or ())
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ValidationError(f"{_INVALID}Duplicate value in attribute name: {name}")
    return names


def checks_in(request: Mapping[str, Any], name: str) -> tuple[Check, ...]:
    """Return QueryFilter, ScanFilter or KeyConditions, and bring their values into normal form.

    Raises:
        ValidationError: one of the conditions makes no sense.
    """
    return tuple(
        _check(attribute, condition["ComparisonOperator"], condition.get("AttributeValueList") or ())
        for attribute, condition in (request.get(name) or {}).items()
    )


def expected_in(request: Mapping[str, Any]) -> tuple[Check, ...]:
    """Return Expected, and bring its values into normal form.

    Raises:
        ValidationError: one of the conditions makes no sense.
    """
    expected = request.get("Expected")
    checks = tuple([_expected(attribute, one or {}) for attribute, one in expected.items()]) if expected else ()
    check_operator(request, checks)
    return checks


def check_operator(request: Mapping[str, Any], checks: Sequence[Check]) -> None:
    """Check that there is something for ConditionalOperator to connect.

    Raises:
        ValidationError: there is not.
    """
    if request.get("ConditionalOperator") is not None and not checks:
        raise ValidationError("ConditionalOperator cannot be used without Filter or Expected")


def is_any(request: Mapping[str, Any]) -> bool:
    """Tell whether one of several checks is enough."""
    return request.get("ConditionalOperator") == "OR"


def changes_in(request: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return AttributeUpdates, and bring its values into normal form.

    Raises:
        ValidationError: one of the changes makes no sense.
    """
    updates = request.get("AttributeUpdates")
    return tuple([_change(attribute, one or {}) for attribute, one in updates.items()]) if updates else ()


def _change(attribute: str, one: Mapping[str, Any]) -> Change:
    action, value = one.get("Action") or "PUT", one.get("Value")
    if value is None:
        if action != "DELETE":
            raise ValidationError(f"{_INVALID}Only DELETE action is allowed when no attribute value is specified")
        return Change(attribute, action)
    normalise_value(value)
    kind = kind_of(value)
    if action == "DELETE" and kind not in SETS:
        raise ValidationError(f"{_INVALID}DELETE action with value is not supported for the type {kind}")
    if action == "ADD" and kind not in _ADDED:
        raise ValidationError(f"{_INVALID}ADD action is not supported for the type {kind}")
    return Change(attribute, action, value)


def _expected(attribute: str, one: Mapping[str, Any]) -> Check:
    operator, value, values = one.get("ComparisonOperator"), one.get("Value"), one.get("AttributeValueList")
    exists = one.get("Exists")
    if value is not None and values is not None:
        raise ValidationError(
            f"{_INVALID}Value and AttributeValueList cannot be used together for Attribute: {attribute}"
        )
    if operator is None:
        if values is not None:
            raise ValidationError(
                f"{_INVALID}AttributeValueList can only be used with a ComparisonOperator for Attribute: {attribute}"
            )
        return _expected_value(attribute, value, exists)
    if exists is not None:
        raise ValidationError(
            f"{_INVALID}Exists and ComparisonOperator cannot be used together for Attribute: {attribute}"
        )
    if value is None and values is None and _ARITY.get(operator, _ONE)[0]:
        raise ValidationError(
            f"{_INVALID}Value or AttributeValueList must be used with ComparisonOperator: {operator} "
            f"for Attribute: {attribute}"
        )
    return _check(attribute, operator, (values or ()) if value is None else (value,))


def _expected_value(attribute: str, value: AttributeValue | None, exists: bool | None) -> Check:
    """Return what is expected without a ComparisonOperator: a value, or nothing."""
    if exists is False:
        if value is not None:
            raise ValidationError(f"{_INVALID}Value cannot be used when Exists is false for Attribute: {attribute}")
        return Check(attribute, "NULL")
    if value is None:
        told = "null" if exists is None else "true"
        raise ValidationError(f"{_INVALID}Value must be provided when Exists is {told} for Attribute: {attribute}")
    normalise_value(value)
    return Check(attribute, "EQ", (value,))


def _check(attribute: str, operator: str, operands: Sequence[AttributeValue]) -> Check:
    for operand in operands:
        normalise_value(operand)
    least, most = _ARITY.get(operator, _ONE)
    if len(operands) < least or (most is not None and len(operands) > most):
        raise ValidationError(f"{_INVALID}Invalid number of argument(s) for the {operator} ComparisonOperator")
    kinds = [kind_of(operand) for operand in operands]
    if len(set(kinds)) > 1:
        raise ValidationError(f"{_INVALID}AttributeValues inside AttributeValueList must be of same type")
    if operator in _KINDS and kinds[0] not in _KINDS[operator]:
        raise ValidationError(
            f"{_INVALID}ComparisonOperator {operator} is not valid for {kinds[0]} AttributeValue type"
        )
    if operator == "BETWEEN" and order_of(operands[0]) > order_of(operands[1]):
        raise ValidationError(
            "The BETWEEN condition was provided a range where the lower bound is greater than the upper bound"
        )
    return Check(attribute, operator, tuple(operands))
