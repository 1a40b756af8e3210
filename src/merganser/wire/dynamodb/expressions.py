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
) -> int:
    """Check the expression parameters of a request against one another; returns the size of the values in bytes.

    Args:
        request: the body, or the part of it that holds the expressions.
        expressions: the expression parameters of the operation.
        legacy: those they may not be mixed with.
        with_values: the expression parameters that take values, as DynamoDB lists them.

    Raises:
        ValidationError: mixed, without use, empty or ill-formed.
    """
    given = [name for name in expressions if request.get(name) is not None]
    old = [name for name in legacy if request.get(name) is not None]
    if given and old:
        raise ValidationError(
            "Can not use both expression and non-expression parameters in the same request: Non-expression "
            f"parameters: {{{', '.join(old)}}} Expression parameters: {{{', '.join(given)}}}"
        )
    names, values = request.get("ExpressionAttributeNames"), request.get("ExpressionAttributeValues")
    if names is not None:
        _check_names(names, has_expression=bool(given))
    if values is not None and with_values:
        has_expression = any(request.get(name) is not None for name in with_values)
        return _check_values(values, has_expression=has_expression, with_values=with_values)
    return 0


def placeholders_of(request: Mapping[str, Any]) -> Placeholders:
    """Return the names and values of a request, or of a part of it, that are checked."""
    return Placeholders(request.get("ExpressionAttributeNames") or {}, request.get("ExpressionAttributeValues") or {})


def _check_names(names: Mapping[str, str], *, has_expression: bool) -> None:
    if not has_expression:
        raise ValidationError("ExpressionAttributeNames can only be specified when using expressions")
    if not names:
        raise ValidationError("ExpressionAttributeNames must not be empty")
    for key, name in names.items():
        if not _NAME(key):
            raise ValidationError(f'ExpressionAttributeNames contains invalid key: Syntax error; key: "{key}"')
        if not name:
            raise ValidationError(
                f"ExpressionAttributeNames contains invalid value: Empty attribute name for key {key}"
            )


def _check_values(values: AttributeMap, *, has_expression: bool, with_values: Sequence[str]) -> int:
    if not has_expression:
        verb = "are" if len(with_values) > 1 else "is"
        raise ValidationError(
            "ExpressionAttributeValues can only be specified when using expressions: "
            f"{' and '.join(with_values)} {verb} null"
        )
    if not values:
        raise ValidationError("ExpressionAttributeValues must not be empty")
    size = 0
    for key, value in values.items():
        if not _VALUE(key):
            raise ValidationError(f'ExpressionAttributeValues contains invalid key: Syntax error; key: "{key}"')
        try:
            size += normalise_value(value)
        except ValidationError as error:
            kind = TooLargeError if isinstance(error, TooLargeError) else ValidationError
            raise kind(f"ExpressionAttributeValues contains invalid value: {error.message} for key {key}") from None
    return size
