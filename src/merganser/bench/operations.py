"""What a client may ask for, as the bodies of DynamoDB requests.

Item i is the same for every process: its key, and its data, which is a slice of one long random text (6 bits to
each character, so that no compression can make it less than three quarters), other for each item.

Two layouts of tables: with a partition key ``pk`` only, an item to each; and *ranged*, with a sort key ``sk`` as well,
``COLLECTION_ITEMS`` items to each partition key.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import NamedTuple

from merganser.bench.choices import scrambled

COLLECTION_ITEMS = 1_000
PAGE_ITEMS = 100
BATCH_ITEMS = 25  # as many as BatchWriteItem takes
TRANSACTION_ITEMS = 3
_TEXT_BYTES = 2**20
_SPREAD = 7_919  # a prime: neighbours in a batch are no neighbours in the key range


class Bodies:
    """Writes the bodies of requests for one table."""

    def __init__(self, table: str, *, items: int, item_bytes: int, is_ranged: bool) -> None:
        """Write for ``items`` items of ``item_bytes`` bytes of data each."""
        self._table = f'"TableName":"{table}"'
        self._name = table
        self._items = items
        self._item_bytes = item_bytes
        self._is_ranged = is_ranged
        self._text = base64.urlsafe_b64encode(random.Random(1).randbytes(_TEXT_BYTES + item_bytes)).decode()

    def key(self, item: int) -> str:
        """Return the JSON of the key; an item that was not loaded lies among those of a collection that was."""
        if not self._is_ranged:
            return f'"pk":{{"S":"item-{item}"}}'
        group, place = divmod(item, COLLECTION_ITEMS)
        if item >= self._items:
            group = scrambled(item) % self._collections
            return f'"pk":{{"S":"group-{group}"}},"sk":{{"S":"{place:04}-{item}"}}'
        return f'"pk":{{"S":"group-{group}"}},"sk":{{"S":"{place:04}"}}'

    def data(self, item: int) -> str:
        """Return what is in the item."""
        start = item * _SPREAD % _TEXT_BYTES
        return self._text[start : start + self._item_bytes]

    def item(self, item: int) -> str:
        """Return the JSON of the item."""
        return f'{{{self.key(item)},"data":{{"S":"{self.data(item)}"}}}}'

    def get(self, item: int) -> bytes:
        """Return a GetItem that may be stale."""
        return f'{{{self._table},"Key":{{{self.key(item)}}}}}'.encode()

    def consistent_get(self, item: int) -> bytes:
        """Return a GetItem that sees every write before it."""
        return f'{{{self._table},"Key":{{{self.key(item)}}},"ConsistentRead":true}}'.encode()

    def put(self, item: int) -> bytes:
        """Return a PutItem."""
        return f'{{{self._table},"Item":{self.item(item)}}}'.encode()

    def conditional_put(self, item: int) -> bytes:
        """Return a PutItem whose condition holds for every item that was loaded."""
        return f'{{{self._table},"Item":{self.item(item)},"ConditionExpression":"attribute_exists(pk)"}}'.encode()

    def update(self, item: int) -> bytes:
        """Return an UpdateItem that writes the data anew and counts how often."""
        return (
            f'{{{self._table},"Key":{{{self.key(item)}}},"UpdateExpression":"SET #d = :d ADD #n :one",'
            f'"ExpressionAttributeNames":{{"#d":"data","#n":"changes"}},"ExpressionAttributeValues":'
            f'{{":d":{{"S":"{self.data(item)}"}},":one":{{"N":"1"}}}}}}'
        ).encode()

    def page(self, item: int) -> bytes:
        """Return a Query of ``PAGE_ITEMS`` items in a row, all of one partition key."""
        first = item - item % COLLECTION_ITEMS
        end = min(first + COLLECTION_ITEMS, self._items)
        return self._query(max(first, min(item, end - PAGE_ITEMS)), PAGE_ITEMS)

    def short_range(self, item: int) -> bytes:
        """Return a Query of 1 to ``PAGE_ITEMS`` items from ``item`` on; the end of the collection ends it, too."""
        return self._query(item, 1 + scrambled(item) % PAGE_ITEMS)

    def batch_get(self, item: int) -> bytes:
        """Return a BatchGetItem of ``BATCH_ITEMS``."""
        keys = ",".join(f"{{{self.key(other)}}}" for other in self._several(item, BATCH_ITEMS))
        return f'{{"RequestItems":{{"{self._name}":{{"Keys":[{keys}]}}}}}}'.encode()

    def batch_write(self, item: int) -> bytes:
        """Return a BatchWriteItem of ``BATCH_ITEMS`` puts."""
        return self.puts(self._several(item, BATCH_ITEMS))

    def puts(self, items: list[int]) -> bytes:
        """Return a BatchWriteItem that puts ``items``."""
        puts = ",".join(f'{{"PutRequest":{{"Item":{self.item(item)}}}}}' for item in items)
        return f'{{"RequestItems":{{"{self._name}":[{puts}]}}}}'.encode()

    def transact_get(self, item: int) -> bytes:
        """Return a TransactGetItems of ``TRANSACTION_ITEMS``."""
        several = self._several(item, TRANSACTION_ITEMS)
        gets = ",".join(f'{{"Get":{{{self._table},"Key":{{{self.key(other)}}}}}}}' for other in several)
        return f'{{"TransactItems":[{gets}]}}'.encode()

    def transact_write(self, item: int) -> bytes:
        """Return a TransactWriteItems that puts ``TRANSACTION_ITEMS``."""
        several = self._several(item, TRANSACTION_ITEMS)
        puts = ",".join(f'{{"Put":{{{self._table},"Item":{self.item(other)}}}}}' for other in several)
        return f'{{"TransactItems":[{puts}]}}'.encode()

    def scan(self, segment: int, segments: int, start: bytes) -> bytes:
        """Return a Scan for the next page of a segment, after the key ``start`` (JSON; empty: from the beginning)."""
        after = f',"ExclusiveStartKey":{start.decode()}' if start else ""
        return f'{{{self._table},"Segment":{segment},"TotalSegments":{segments}{after}}}'.encode()

    @property
    def _collections(self) -> int:
        return -(-self._items // COLLECTION_ITEMS)

    def _query(self, item: int, limit: int) -> bytes:
        group, place = divmod(item, COLLECTION_ITEMS)
        return (
            f'{{{self._table},"KeyConditionExpression":"pk = :p AND sk >= :s","Limit":{limit},'
            f'"ExpressionAttributeValues":{{":p":{{"S":"group-{group}"}},":s":{{"S":"{place:04}"}}}}}}'
        ).encode()

    def _several(self, item: int, count: int) -> list[int]:
        """Return items that differ, as a batch must not name one twice; fewer if there are no more."""
        return list(dict.fromkeys((item + _SPREAD * step) % self._items for step in range(count)))


class Operation(NamedTuple):
    """What one latency is of: a request, or several in turn."""

    steps: tuple[tuple[str, Callable[[Bodies, int], bytes]], ...]
    """DynamoDB's name of each request, and its body."""
    written: int = 0
    """Items that it writes."""
    read: int = 0
    """Items that its answer brings, at most."""
    is_insert: bool = False
    """Writes a new item each time."""
    is_counted: bool = False
    """The answer says in ``Count`` how many items it brings."""


SCAN = "scan"
"""Goes through a whole table, page after page: each connection through a segment of its own."""

OPERATIONS: dict[str, Operation] = {
    "get": Operation((("GetItem", Bodies.get),), read=1),
    "consistent-get": Operation((("GetItem", Bodies.consistent_get),), read=1),
    "put": Operation((("PutItem", Bodies.put),), written=1),
    "insert": Operation((("PutItem", Bodies.put),), written=1, is_insert=True),
    "conditional-put": Operation((("PutItem", Bodies.conditional_put),), written=1),
    "update": Operation((("UpdateItem", Bodies.update),), written=1),
    "read-modify-write": Operation(
        (("GetItem", Bodies.consistent_get), ("UpdateItem", Bodies.update)), written=1, read=1
    ),
    "page": Operation((("Query", Bodies.page),), read=PAGE_ITEMS, is_counted=True),
    "range": Operation((("Query", Bodies.short_range),), read=PAGE_ITEMS // 2, is_counted=True),
    "batch-get": Operation((("BatchGetItem", Bodies.batch_get),), read=BATCH_ITEMS),
    "batch-write": Operation((("BatchWriteItem", Bodies.batch_write),), written=BATCH_ITEMS),
    "transact-get": Operation((("TransactGetItems", Bodies.transact_get),), read=TRANSACTION_ITEMS),
    "transact-write": Operation((("TransactWriteItems", Bodies.transact_write),), written=TRANSACTION_ITEMS),
    SCAN: Operation((("Scan", Bodies.get),), is_counted=True),
}
