"""The expressions of a request, from text to trees that can be evaluated.

A message about an expression begins with the parameter it stands in. Whoever has read all expressions of a request asks
`Placeholders.check_all_used`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from merganser.query.binding import Placeholders
from merganser.query.parser import TREES_MAX, parse_condition, parse_projection, parse_update
from merganser.query.syntax import Condition, ExpressionError, Path, Update

T = TypeVar("T")


def condition(text: str, placeholders: Placeholders, *, parameter: str = "ConditionExpression") -> Condition:
    """Return the condition of a ConditionExpression, FilterExpression or KeyConditionExpression.

    Raises:
        ExpressionError: with DynamoDB's whole message.
    """
    if placeholders.are_none:
        return _read(lambda: _without_placeholders(text), parameter)
    return _read(lambda: placeholders.bind(parse_condition(text)), parameter)


def update(text: str, placeholders: Placeholders) -> Update:
    """Return the update of an UpdateExpression.

    Raises:
        ExpressionError: with DynamoDB's whole message.
    """
    return _read(lambda: placeholders.bind_update(parse_update(text)), "UpdateExpression")


def projection(text: str, placeholders: Placeholders) -> tuple[Path, ...]:
    """Return the paths of a ProjectionExpression.

    Raises:
        ExpressionError: with DynamoDB's whole message.
    """
    return _read(lambda: placeholders.bind_paths(parse_projection(text)), "ProjectionExpression")


@lru_cache(maxsize=TREES_MAX)
def _without_placeholders(text: str) -> Condition:
    """Return a condition that is the same in every request: most of those that ask whether there is an item."""
    return Placeholders({}, {}).bind(parse_condition(text))


def _read(read: Callable[[], T], parameter: str) -> T:
    try:
        return read()
    except ExpressionError as error:
        raise ExpressionError(f"Invalid {parameter}: {error}") from None
