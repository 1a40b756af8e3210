"""The constraints of the API's model, checked together and reported together.

DynamoDB collects every violation into one message: "2 validation errors detected: …; …". Members are
named as its Java model names them: ``provisionedThroughput.readCapacityUnits``,
``keySchema.1.member.keyType``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from merganser.wire.dynamodb.arns import name_of, table_in
from merganser.wire.dynamodb.errors import ValidationError

_TABLE_NAME = re.compile(r"[a-zA-Z0-9_.-]+").fullmatch
_TABLE_PATTERN = "[a-zA-Z0-9_.-]+"

TOLD_MAX: Final = 10
"""Violations in one message; DynamoDB looks no further."""

# In the order in which DynamoDB prints them.
ENUMS: Final[Mapping[str, tuple[str, ...]]] = {
    "ReturnConsumedCapacity": ("INDEXES", "TOTAL", "NONE"),
    "ReturnItemCollectionMetrics": ("SIZE", "NONE"),
    "ReturnValues": ("ALL_NEW", "UPDATED_OLD", "ALL_OLD", "NONE", "UPDATED_NEW"),
    "ReturnValuesOnConditionCheckFailure": ("ALL_OLD", "NONE"),
    "ConditionalOperator": ("OR", "AND"),
    "ComparisonOperator": (
        "IN",
        "NULL",
        "BETWEEN",
        "LT",
        "NOT_CONTAINS",
        "EQ",
        "GT",
        "NOT_NULL",
        "NE",
        "LE",
        "BEGINS_WITH",
        "GE",
        "CONTAINS",
    ),
    "Action": ("ADD", "PUT", "DELETE"),
    "Select": ("SPECIFIC_ATTRIBUTES", "COUNT", "ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES"),
    "BillingMode": ("PROVISIONED", "PAY_PER_REQUEST"),
    "TableClass": ("STANDARD", "STANDARD_INFREQUENT_ACCESS"),
    "SSEType": ("AES256", "KMS"),
    "StreamViewType": ("NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES", "KEYS_ONLY"),
    "AttributeType": ("B", "N", "S"),
    "KeyType": ("HASH", "RANGE"),
    "ProjectionType": ("ALL", "INCLUDE", "KEYS_ONLY"),
}


def member_name(name: str) -> str:
    """Return ``TableName`` as the model's ``tableName``."""
    return name[0].lower() + name[1:]


class Violations:
    """What is wrong with a request, collected until `settle`."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        """Start with none."""
        self._found: list[str] = []

    def add(self, shown: Any, at: str, constraint: str) -> None:
        """Add one; ``shown`` None is a missing member."""
        value = "null" if shown is None else f"'{shown}'"
        self._found.append(f"Value {value} at '{at}' failed to satisfy constraint: {constraint}")

    def required(self, request: Mapping[str, Any], name: str, prefix: str = "") -> bool:
        """Check that a member is there, and return whether it is."""
        if request.get(name) is not None:
            return True
        self.add(None, prefix + member_name(name), "Member must not be null")
        return False

    def enum(self, request: Mapping[str, Any], name: str, prefix: str = "") -> None:
        """Check a member of `ENUMS`, if it is there."""
        value = request.get(name)
        if value is not None and value not in ENUMS[name]:
            constraint = f"Member must satisfy enum value set: [{', '.join(ENUMS[name])}]"
            self.add(value, prefix + member_name(name), constraint)

    def enums(self, request: Mapping[str, Any], *names: str) -> None:
        """Check several members of `ENUMS`."""
        if request.keys().isdisjoint(names):  # of nearly all requests
            return
        for name in names:
            self.enum(request, name)

    def between(
        self, request: Mapping[str, Any], name: str, *, least: int, most: int | None = None, prefix: str = ""
    ) -> None:
        """Check the bounds of a number, if it is there."""
        value = request.get(name)
        if value is None:
            return
        if value < least:
            self.add(int(value), prefix + member_name(name), f"Member must have value greater than or equal to {least}")
        if most is not None and value > most:
            self.add(int(value), prefix + member_name(name), f"Member must have value less than or equal to {most}")

    def length(self, shown: Any, size: int, at: str, *, least: int, most: int) -> None:
        """Check the length of a string or list."""
        if size < least:
            self.add(shown, at, f"Member must have length greater than or equal to {least}")
        if size > most:
            self.add(shown, at, f"Member must have length less than or equal to {most}")

    def table_name(self, request: Mapping[str, Any], name: str = "TableName") -> None:
        """Check a table's name, or ARN, as the operations on items do."""
        value = request.get(name)
        if value is not None and is_table_name(value):  # nearly always, and in each request
            return
        if self.required(request, name) and table_in(request[name]) is None:
            self._pattern(request[name], member_name(name))
            self.length(request[name], len(request[name]), member_name(name), least=3, most=255)

    def table_pattern(self, request: Mapping[str, Any], name: str = "TableName") -> None:
        """Check only the characters of a table's name; see `require_table_name`."""
        if request.get(name) is not None and table_in(request[name]) is None:
            self._pattern(request[name], member_name(name))

    def name(self, value: str, at: str) -> None:
        """Check a name of what belongs to a table."""
        self._pattern(value, at)
        self.length(value, len(value), at, least=3, most=255)

    def _pattern(self, value: str, at: str) -> None:
        if not _TABLE_NAME(value):
            self.add(value, at, f"Member must satisfy regular expression pattern: {_TABLE_PATTERN}")

    def settle(self) -> None:
        """Report what was found.

        Raises:
            ValidationError: something was.
        """
        if self._found:
            told = self._found[:TOLD_MAX]
            plural = "s" if len(told) > 1 else ""
            raise ValidationError(f"{len(told)} validation error{plural} detected: {'; '.join(told)}")


def key_schema_violations(violations: Violations, schema: Any, at: str, *, most: int) -> None:
    """Add what is wrong with a KeySchema by the API's model."""
    violations.length(_shown_schema(schema), len(schema), at, least=1, most=most)
    element_violations(violations, schema, at, "KeyType")


def element_violations(violations: Violations, elements: Any, at: str, kind: str) -> None:
    """Add what is wrong with a list of attributes, each with a ``kind``."""
    for number, element in enumerate(elements, start=1):
        prefix = f"{at}.{number}.member."
        if violations.required(element or {}, "AttributeName", prefix):
            name = element["AttributeName"]
            violations.length(name, len(name), prefix + "attributeName", least=1, most=255)
        if violations.required(element or {}, kind, prefix):
            violations.enum(element, kind, prefix)


def _shown_schema(schema: Any) -> str:
    """Print a key schema as DynamoDB's Java does."""
    elements = (
        f"KeySchemaElement(attributeName={one.get('AttributeName')}, keyType={one.get('KeyType')})" if one else "null"
        for one in schema
    )
    return f"[{', '.join(elements)}]"


def shown(value: Any) -> str:
    """Return a value as messages show it: in JSON, though DynamoDB prints what its Java does."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # nested deeper than it writes, though not deeper than it reads
        return "..."


def require_table_name(request: Mapping[str, Any], name: str = "TableName") -> None:
    """Check a table's name as the operations on tables do: first of all, and in other words.

    Raises:
        ValidationError: missing, too short or too long.
    """
    value = request.get(name)
    if value is None:
        raise ValidationError(f"The parameter '{name}' is required but was not present in the request")
    check_table_name_length(name_of(value), name)


def check_table_name_length(value: str, name: str) -> None:
    """Check the length of a table's name.

    Raises:
        ValidationError: too short or too long.
    """
    if not 3 <= len(value) <= 255:
        raise ValidationError(f"{name} must be at least 3 characters long and at most 255 characters long")


def is_table_name(value: str) -> bool:
    """Tell whether ``value`` could name a table, or is its ARN."""
    return (3 <= len(value) <= 255 and _TABLE_NAME(value) is not None) or table_in(value) is not None
