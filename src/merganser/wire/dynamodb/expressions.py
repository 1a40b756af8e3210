"""Which expression parameters go together, and their names and values; DynamoDB's checks and order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from merganser.query.binding import Placeholders
from merganser.wire.dynamodb.attributes import AttributeMap, TooLargeError, normalise_value
from merganser.wire.dynamodb.errors import ValidationError

_NAME = re.compile(r"#[0-9a-zA-Z_]+").fullmatch
_VALUE = re.compile(r":[0-9a-zA-Z_]+").fullmatch


def check_parameters(
    request: Mapping[str, Any],
    *,
    expressions: Sequence[str],
    legacy: Sequence[str] = (),
    with_values: Sequence[str] = (),
) -> None:
    """Check the expression parameters of a request against one another; what is in them, `check_placeholders` looks at.

    Args:
        request: the body, or the part of it that holds the expressions.
        expressions: the expression parameters of the operation.
        legacy: those they may not be mixed with.
        with_values: the expression parameters that take values, as DynamoDB lists them.

    Raises:
        ValidationError: mixed, or without use.
    """
    given = [name for name in expressions if request.get(name) is not None]
    old = [name for name in legacy if request.get(name) is not None]
    if given and old:
        raise ValidationError(
            "Can not use both expression and non-expression parameters in the same request: Non-expression "
            f"parameters: {{{', '.join(old)}}} Expression parameters: {{{', '.join(given)}}}"
        )
    if request.get("ExpressionAttributeNames") is not None and not given:
        raise ValidationError("ExpressionAttributeNames can only be specified when using expressions")
    has_values = request.get("ExpressionAttributeValues") is not None and bool(with_values)
    if has_values and not any(name in with_values for name in given):
        verb = "are" if len(with_values) > 1 else "is"
        raise ValidationError(
            "ExpressionAttributeValues can only be specified when using expressions: "
            f"{' and '.join(with_values)} {verb} null"
        )


def check_placeholders(request: Mapping[str, Any], *, has_values: bool = True, names_wrong: bool = True) -> int:
    """Check names and values, and bring values into normal form; returns their size in bytes.

    DynamoDB does so after it has looked at items and keys, and before it reads expressions.

    Args:
        request: or the part of it that holds them.
        has_values: the operation knows of values.
        names_wrong: the operation tells which value is wrong.

    Raises:
        ValidationError: there are none, or one is ill-formed.
    """
    names, values = request.get("ExpressionAttributeNames"), request.get("ExpressionAttributeValues")
    if names is not None:
        _check_names(names)
    return _check_values(values, names_wrong) if values is not None and has_values else 0


def placeholders_of(request: Mapping[str, Any], *, has_values: bool = True) -> Placeholders:
    """Return the names and values of a request, or of a part of it, that are checked."""
    values = request.get("ExpressionAttributeValues") if has_values else None
    return Placeholders(request.get("ExpressionAttributeNames") or {}, values or {})


def _check_names(names: Mapping[str, Any]) -> None:
    if not names:
        raise ValidationError("ExpressionAttributeNames must not be empty")
    for key, name in names.items():
        if not _NAME(key):
            raise ValidationError(f'ExpressionAttributeNames contains invalid key: Syntax error; key: "{key}"')
        if not name:
            raise ValidationError(
                f"ExpressionAttributeNames contains invalid value: Empty attribute name for key {key}"
            )


def _check_values(values: AttributeMap, names_wrong: bool) -> int:
    if not values:
        raise ValidationError("ExpressionAttributeValues must not be empty")
    for key in values:
        if not _VALUE(key):
            raise ValidationError(f'ExpressionAttributeValues contains invalid key: Syntax error; key: "{key}"')
    size = 0
    for key, value in values.items():
        try:
            size += normalise_value(value)
        except ValidationError as error:
            if not names_wrong:
                raise
            kind = TooLargeError if isinstance(error, TooLargeError) else ValidationError
            raise kind(f"ExpressionAttributeValues contains invalid value: {error.message} for key {key}") from None
    return size
