"""Secondary indexes: what is kept of them, and what an item is in one.

Local ones are part of the definition of their table, for its whole life. Of global ones the cluster map keeps each as a
`model.cluster.Index`, whose definition is this wire's; they come and go.

An item stands in an index if it has all key attributes of it, each of the type that the index says, not empty, and no
longer than a key may be. Writes see to that; what was there before an index was may be otherwise, and is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from merganser.model.cluster import Index, Table
from merganser.wire.dynamodb.key_schemas import KeyAttribute, KeySchema
from merganser.wire.dynamodb.table_settings import OnDemandLimits, Throughput, WarmThroughput

ProjectionType = Literal["ALL", "KEYS_ONLY", "INCLUDE"]


class Projection(msgspec.Struct, frozen=True):
    """What an index shows of an item, besides the key attributes of index and table."""

    kind: ProjectionType
    names: tuple[str, ...] = ()
    """Of INCLUDE, as they were given."""

    def described(self) -> dict[str, Any]:
        """Return it as clients are told."""
        told: dict[str, Any] = {"ProjectionType": self.kind}
        if self.names:
            told["NonKeyAttributes"] = list(self.names)
        return told


class IndexDefinition(msgspec.Struct, frozen=True):
    """A secondary index, local or global."""

    name: str
    partition: tuple[KeyAttribute, ...]
    """One to four; of a local index that of the table."""
    sort: tuple[KeyAttribute, ...]
    """Up to four; of a local index one."""
    projection: Projection
    throughput: Throughput | None = None
    """Of a global index when it was made."""
    on_demand_limits: OnDemandLimits | None = None
    warm: WarmThroughput | None = None

    @property
    def attributes(self) -> tuple[KeyAttribute, ...]:
        """The key attributes of the index."""
        return self.partition + self.sort

    @property
    def shows_all(self) -> bool:
        """Tell whether it shows items whole."""
        return self.projection.kind == "ALL"

    def shown(self, schema: KeySchema) -> frozenset[str]:
        """Return the names of the attributes it shows, unless it shows all.

        Args:
            schema: the table's.
        """
        keys = (attribute.name for attribute in (*schema.attributes, *self.attributes))
        return frozenset((*keys, *self.projection.names))

    def encoded(self) -> bytes:
        """Return the bytes for `model.cluster.Index.definition`."""
        return msgspec.msgpack.encode(self)

    def described_keys(self) -> list[dict[str, str]]:
        """Return its KeySchema."""
        return [
            {"AttributeName": attribute.name, "KeyType": kind}
            for kind, attributes in (("HASH", self.partition), ("RANGE", self.sort))
            for attribute in attributes
        ]


@functools.lru_cache(maxsize=4096)
def definition_of_index(index: Index) -> IndexDefinition:
    """Return the definition of a global index."""
    return msgspec.msgpack.decode(index.definition, type=IndexDefinition)


def global_indexes(table: Table) -> tuple[tuple[Index, IndexDefinition], ...]:
    """Return the global indexes of a table that are not about to go."""
    return tuple((index, definition_of_index(index)) for index in table.indexes if index.state != "deleting")


def described_index(index: IndexDefinition, table_arn: str) -> dict[str, Any]:
    """Return what is told of any index of a table with that ARN."""
    return {
        "IndexName": index.name,
        "KeySchema": index.described_keys(),
        "Projection": index.projection.described(),
        "IndexArn": f"{table_arn}/index/{index.name}",
    }


ATTRIBUTES_MAX: Final = 4
"""Key attributes of a global index, of either kind."""


def picked(item: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return the attributes of an item that have these names, in its order."""
    return {name: value for name, value in item.items() if name in names}
