"""What a table's primary key is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from merganser.wire.dynamodb.attributes import AttributeMap


class KeyAttribute(msgspec.Struct, frozen=True):
    """An attribute of a table's primary key."""

    name: str
    kind: str
    """S, N or B."""


class KeySchema(msgspec.Struct, frozen=True):
    """A table's primary key."""

    partition: KeyAttribute
    sort: KeyAttribute | None = None

    @property
    def attributes(self) -> tuple[KeyAttribute, ...]:
        """The partition key, then the sort key if there is one."""
        return (self.partition,) if self.sort is None else (self.partition, self.sort)

    def of(self, item: Mapping[str, Any]) -> AttributeMap:
        """Return the key attributes of an item."""
        return {attribute.name: item[attribute.name] for attribute in self.attributes}
