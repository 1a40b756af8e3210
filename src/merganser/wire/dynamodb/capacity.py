"""What requests consume, by DynamoDB's own counting, and how ReturnConsumedCapacity tells it.

A read takes a unit for each 4 KB, and half of that when it is eventually consistent; a write one for each 1 KB of the
item as it was or as it becomes, whichever is larger. In transactions both count twice, since every item is prepared and
committed. Nothing takes less than one such unit, also where no item is found. GetItem and the batches round up each
item, Query and Scan the sum of all that they went through.

::

    TOTAL     TableName, CapacityUnits
    INDEXES   the same, and Table, LocalSecondaryIndexes, GlobalSecondaryIndexes: what each of them took of it

Transactions tell besides whether units are of reads or of writes: a repeated TransactWriteItems only reads.

Source: Amazon DynamoDB Developer Guide, "DynamoDB capacity unit consumption"; API reference, ConsumedCapacity.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

READ_BYTES: Final = 4 * 1024
WRITE_BYTES: Final = 1024
TRANSACTION_FACTOR: Final = 2
"""Of what a read or write takes in a transaction."""

_NAME: Final = b'"ConsumedCapacity":'


class Split(enum.Enum):
    """Which units those of a transaction are."""

    READ = "ReadCapacityUnits"
    WRITE = "WriteCapacityUnits"


class Consumption:
    """What a request took of one table and its indexes."""

    __slots__ = ("global_indexes", "local_indexes", "table", "units")

    def __init__(self, table: str, units: float = 0.0) -> None:
        """Begin with what it took of the table itself."""
        self.table = table
        self.units = units
        self.local_indexes: dict[str, float] = {}
        self.global_indexes: dict[str, float] = {}

    @property
    def total(self) -> float:
        """Of the table and all indexes."""
        return self.units + sum(self.local_indexes.values()) + sum(self.global_indexes.values())

    def described(self, detail: str, split: Split | None = None) -> dict[str, Any]:
        """Return the ConsumedCapacity that ``detail``, TOTAL or INDEXES, asks for."""
        told = {"TableName": self.table, **_units(self.total, split)}
        if detail == "INDEXES":
            told["Table"] = _units(self.units, split)
            for name, indexes in (
                ("LocalSecondaryIndexes", self.local_indexes),
                ("GlobalSecondaryIndexes", self.global_indexes),
            ):
                if indexes:
                    told[name] = {index: _units(units, split) for index, units in indexes.items()}
        return told


class Consumptions:
    """What a request took of several tables, in the order in which it names them."""

    __slots__ = ("_tables",)

    def __init__(self) -> None:
        """Begin with nothing."""
        self._tables: dict[str, Consumption] = {}

    def of(self, table: str) -> Consumption:
        """Return what it took of a table, to be added to."""
        consumption = self._tables.get(table)
        if consumption is None:
            consumption = self._tables[table] = Consumption(table)
        return consumption

    def told(self, request: Mapping[str, Any], split: Split | None = None) -> Sequence[bytes]:
        """Return the member ``ConsumedCapacity`` of an answer, for `answers.answer_of`; empty if it is not wanted."""
        if not is_wanted(request):
            return ()
        detail = request["ReturnConsumedCapacity"]
        return (_NAME, orjson.dumps([consumption.described(detail, split) for consumption in self._tables.values()]))


def is_wanted(request: Mapping[str, Any]) -> bool:
    """Tell whether an answer is to say what was consumed."""
    return request.get("ReturnConsumedCapacity") not in (None, "NONE")


def told(request: Mapping[str, Any], consumption: Consumption) -> Sequence[bytes]:
    """Return the same member of an answer about one table."""
    if not is_wanted(request):
        return ()
    return (_NAME, orjson.dumps(consumption.described(request["ReturnConsumedCapacity"])))


def read_units(size: int, *, is_consistent: bool) -> float:
    """Return what it takes to read so many bytes at once."""
    units = max(1, -(-size // READ_BYTES))
    return float(units) if is_consistent else units / 2


def write_units(before: int, after: int) -> float:
    """Return what it takes to make an item of ``before`` bytes one of ``after``; 0 where there is none."""
    return float(max(1, -(-max(before, after) // WRITE_BYTES)))


def transact_read_units(size: int) -> float:
    """Return what it takes to read an item in a transaction."""
    return TRANSACTION_FACTOR * read_units(size, is_consistent=True)


def transact_write_units(before: int, after: int) -> float:
    """Return what it takes to write an item, or check its condition, in a transaction."""
    return TRANSACTION_FACTOR * write_units(before, after)


def _units(units: float, split: Split | None) -> dict[str, Any]:
    return {"CapacityUnits": units} if split is None else {"CapacityUnits": units, split.value: units}
