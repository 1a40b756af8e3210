"""BatchWriteItem and BatchGetItem: everything is validated before anything is done.

Items are independent: each is written or read for itself, a few at a time. One whose replicas could not be reached,
whose outcome is unknown, or that a transaction holds, goes back to the client as unprocessed, as does what no longer
fits into the answer. If every item fails, and not because of transactions, the first error is the answer.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from merganser.model.cluster import Table
from merganser.model.errors import TransactionConflictError, UnavailableError, UnknownOutcomeError
from merganser.wire.dynamodb import capacity
from merganser.wire.dynamodb.answers import answer_of
from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.capacity import Consumptions, read_units, write_units
from merganser.wire.dynamodb.collections import Written, metrics_of_all
from merganser.wire.dynamodb.constraints import Violations, is_table_name, shown
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.expressions import check_parameters, check_placeholders
from merganser.wire.dynamodb.index_capacity import add_index_writes
from merganser.wire.dynamodb.index_items import check_item
from merganser.wire.dynamodb.items import TURN_BYTES, encoded, size_of
from merganser.wire.dynamodb.keys import key_of
from merganser.wire.dynamodb.legacy import check_names
from merganser.wire.dynamodb.session import Session
from merganser.wire.dynamodb.steps import Measured
from merganser.wire.dynamodb.tables import definition_of
from merganser.wire.dynamodb.views import View, projection_of

WRITES_MAX: Final = 25
KEYS_MAX: Final = 100
BYTES_MAX: Final = 16 * 1024 * 1024
CONCURRENCY: Final = 25  # a whole BatchWriteItem at once; a BatchGetItem in four rounds

_GIVEN_BACK = ("ConsistentRead", "ProjectionExpression", "ExpressionAttributeNames", "AttributesToGet")
_DUPLICATES = "Provided list of item keys contains duplicates"
_NOT_ONE_REQUEST = (
    "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
)
_MAP_KEYS = (
    "Map keys must satisfy constraint: [Member must have length less than or equal to 255, Member must have length "
    "greater than or equal to 3, Member must satisfy regular expression pattern: [a-zA-Z0-9_.-]+]"
)
_MAP_VALUES = (
    "Map value must satisfy constraint: [Member must have length less than or equal to 25, Member must have length "
    "greater than or equal to 1]"
)

T = TypeVar("T")

_UNDONE = (UnavailableError, UnknownOutcomeError, TransactionConflictError)
"""What leaves one item undone, or perhaps undone, and is no reason not to do the others."""


class _Write(NamedTuple):
    table: Table
    key: bytes
    item: bytes | None
    """In stored form; None: delete it."""
    request: Mapping[str, Any]

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The item, or the key."""
        put = self.request.get("PutRequest")
        attributes: Mapping[str, Any] = self.request["DeleteRequest"]["Key"] if put is None else put["Item"]
        return attributes


class _Read(NamedTuple):
    table: Table
    key: bytes
    is_consistent: bool
    asked: Mapping[str, Any]
    view: View


class _Unread(enum.Enum):
    UNREAD = "unread"


_UNREAD: Final = _Unread.UNREAD
"""An item for which there was no room left in the answer."""


class _Found(NamedTuple):
    size: int
    """Of the item, as it counts for the answer's limit whatever is shown of it; 0 if there is none."""
    shown: bytes | None


_NOT_FOUND: Final = _Found(0, None)


class _Reader:
    """Reads items for one answer until it is full; what was under way by then is read to its end."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._room = BYTES_MAX

    async def item(self, one: _Read) -> _Found | _Unread:
        if self._room <= 0:
            return _UNREAD
        item = await self._session.item(one.table, one.key, is_consistent=one.is_consistent)
        if item is None:
            return _NOT_FOUND
        size = size_of(item)
        self._room -= size
        return _Found(size, one.view.of(item))


async def batch_write_item(session: Session, request: dict[str, Any]) -> list[bytes]:
    """Put and delete up to 25 items."""
    _check_writes(request)
    sizes = [await _measured_in_turn(one) for requests in request["RequestItems"].values() for one in requests]
    if sum(sizes) > BYTES_MAX:
        raise ValidationError("The batch write request exceeds the maximum size of 16 MB")
    writes = await _planned_writes(session, request["RequestItems"], sizes)
    done: Sequence[Measured | Exception | None]
    if capacity.is_wanted(request):
        done = await _all(writes, lambda one: session.replace_measured(one.table, one.key, one.item))
    else:
        done = _checked(await session.replace_all([(one.table, one.key, one.item) for one in writes]))
    unprocessed: dict[str, list[Mapping[str, Any]]] = {}
    written: list[Written] = []
    consumed = Consumptions()
    for one, outcome in zip(writes, done, strict=True):
        if isinstance(outcome, Exception):
            unprocessed.setdefault(one.table.name, []).append(one.request)
            continue
        written.append((one.table, one.attributes))
        if outcome is not None:
            consumption = consumed.of(one.table.name)
            consumption.units += write_units(outcome.before, outcome.after)
            add_index_writes(consumption, one.table, outcome.indexes)
    metrics = await metrics_of_all(session, request, written)
    return answer_of((b'"UnprocessedItems":', orjson.dumps(unprocessed)), consumed.told(request), metrics)


async def batch_get_item(session: Session, request: dict[str, Any]) -> list[bytes]:
    """Get up to 100 items, as far as 16 MB hold them."""
    views = _check_reads(request)
    reads = await _planned_reads(session, request["RequestItems"], views)
    found = await _all(reads, _Reader(session).item)
    responses: dict[str, list[bytes]] = {name: [] for name in request["RequestItems"]}
    unprocessed: dict[str, dict[str, Any]] = {}
    consumed = Consumptions()
    room = BYTES_MAX
    for one, item in zip(reads, found, strict=True):
        if not isinstance(item, _Found) or item.size > room:
            _give_back(unprocessed, one, request["RequestItems"][one.table.name])
            continue
        room -= item.size
        consumed.of(one.table.name).units += read_units(item.size, is_consistent=one.is_consistent)
        if item.shown is not None:
            responses[one.table.name].append(item.shown)
    return _answer(responses, unprocessed, consumed.told(request))


def _check_writes(request: Mapping[str, Any]) -> None:
    violations = Violations()
    violations.enums(request, "ReturnConsumedCapacity", "ReturnItemCollectionMetrics")
    tables = _request_items(violations, request, at_most=WRITES_MAX)
    if any(not 1 <= len(requests or ()) <= WRITES_MAX for requests in tables.values()):
        violations.add(_shown(tables), "requestItems", _MAP_VALUES)
    for name, requests in tables.items():
        for number, one in enumerate(requests or (), start=1):
            for kind, content in (("PutRequest", "Item"), ("DeleteRequest", "Key")):
                if (one or {}).get(kind) is not None:
                    at = f"requestItems.{name}.member.{number}.member.{kind[0].lower()}{kind[1:]}."
                    violations.required(one[kind], content, at)
    violations.settle()
    if sum(map(len, tables.values())) > WRITES_MAX:
        raise ValidationError("Too many items requested for the BatchWriteItem call")


def _check_reads(request: Mapping[str, Any]) -> dict[str, View]:
    """Check a BatchGetItem, and return what it wants to see of each table."""
    violations = Violations()
    violations.enums(request, "ReturnConsumedCapacity")
    tables = _request_items(violations, request, at_most=KEYS_MAX)
    for name, asked in tables.items():
        at = f"requestItems.{name}.member."
        keys = (asked or {}).get("Keys")
        if keys is None:
            violations.required({}, "Keys", at)
        else:
            if not 1 <= len(keys) <= KEYS_MAX:
                violations.length(shown(keys), len(keys), at + "keys", least=1, most=KEYS_MAX)
        check_names(violations, asked or {}, at)
    violations.settle()
    views = {}
    for name, asked in tables.items():
        check_parameters(asked, expressions=("ProjectionExpression",), legacy=("AttributesToGet",))
        check_placeholders(asked, has_values=False)
        views[name] = projection_of(asked)
        keys = [key or {} for key in asked["Keys"]]
        for key in keys:
            normalise(key)
        _refuse_duplicates([orjson.dumps(key, option=orjson.OPT_SORT_KEYS) for key in keys])
    if sum(len(asked["Keys"]) for asked in tables.values()) > KEYS_MAX:
        raise ValidationError("Too many items requested for the BatchGetItem call")
    return views


def _request_items(violations: Violations, request: Mapping[str, Any], *, at_most: int) -> dict[str, Any]:
    if not violations.required(request, "RequestItems"):
        return {}
    tables: dict[str, Any] = request["RequestItems"]
    if not 1 <= len(tables) <= at_most:
        violations.length(_shown(tables), len(tables), "requestItems", least=1, most=at_most)
    if not all(map(is_table_name, tables)):
        violations.add(_shown(tables), "requestItems", _MAP_KEYS)
    return tables


def _shown(tables: Mapping[str, Any]) -> str:
    """Print a map of requests the way Java prints maps; what lies inside is left in JSON."""
    return "{" + ", ".join(f"{name}={shown(requests)}" for name, requests in tables.items()) + "}"


def _measured(one: Any) -> int:
    """Bring one request into normal form and return its size."""
    put, delete = (one or {}).get("PutRequest"), (one or {}).get("DeleteRequest")
    if put is not None and delete is None:
        return normalise(put["Item"])
    if delete is not None and put is None:
        return normalise(delete["Key"])
    raise ValidationError(_NOT_ONE_REQUEST)


async def _measured_in_turn(one: Any) -> int:
    """As `_measured`; a batch of 16 MB would keep everyone else waiting for a second or two."""
    size = _measured(one)
    if size > TURN_BYTES:
        await asyncio.sleep(0)
    return size


async def _planned_writes(session: Session, tables: Mapping[str, Any], sizes: Sequence[int]) -> list[_Write]:
    writes: list[_Write] = []
    measures = iter(sizes)
    for name, requests in tables.items():
        table = await session.table(name)
        schema = definition_of(table).schema
        for one in requests:
            size, put = next(measures), one.get("PutRequest")
            if put is not None:
                item = put["Item"]  # if its key is wrong DynamoDB says so as of a key, unlike of a PutItem
                key = key_of(schema, table.id, {of.name: item[of.name] for of in schema.attributes if of.name in item})
                check_item(table, item)
                write = _Write(table, key, encoded(item, size), one)
            else:
                write = _Write(table, key_of(schema, table.id, one["DeleteRequest"]["Key"]), None, one)
            writes.append(write)
    _refuse_duplicates([one.key for one in writes])
    return writes


async def _planned_reads(session: Session, tables: Mapping[str, Any], views: Mapping[str, View]) -> list[_Read]:
    reads: list[_Read] = []
    for name, asked in tables.items():
        table = await session.table(name)
        schema = definition_of(table).schema
        is_consistent = bool(asked.get("ConsistentRead"))
        keys = [key_of(schema, table.id, key or {}) for key in asked["Keys"]]
        view = views[name]
        view.check_keys(table)
        reads += [_Read(table, key, is_consistent, given, view) for key, given in zip(keys, asked["Keys"], strict=True)]
    _refuse_duplicates([one.key for one in reads])
    return reads


def _refuse_duplicates(keys: Sequence[bytes]) -> None:
    if len(set(keys)) != len(keys):
        raise ValidationError(_DUPLICATES)


R = TypeVar("R")


async def _all(units: Sequence[T], work: Callable[[T], Awaitable[R]]) -> list[R | Exception]:
    """Do every unit, a bounded number at a time, and return results or the errors that leave it undone.

    Raises:
        UnavailableError: so for every unit.
        UnknownOutcomeError: so for every unit.
        MerganserError: another error of any unit, after all have ended.
    """
    turns = asyncio.Semaphore(CONCURRENCY)

    async def one(unit: T) -> R | Exception:
        async with turns:
            try:
                return await work(unit)
            except _UNDONE as error:
                return error

    return _checked(await asyncio.gather(*[one(unit) for unit in units], return_exceptions=True))


def _checked(outcomes: Sequence[R | Exception | BaseException]) -> list[R | Exception]:
    """Return results, and the errors that leave a unit undone; raises as `_all`."""
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    for failure in failures:
        if not isinstance(failure, _UNDONE):
            raise failure
    errors = [failure for failure in failures if not isinstance(failure, TransactionConflictError)]
    if len(failures) == len(outcomes) and errors:
        raise errors[0]
    return [_settled(outcome) for outcome in outcomes]


def _settled(outcome: R | Exception | BaseException) -> R | Exception:
    if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
        raise outcome
    return outcome


def _give_back(unprocessed: dict[str, dict[str, Any]], one: _Read, asked: Mapping[str, Any]) -> None:
    name = one.table.name
    if name not in unprocessed:
        unprocessed[name] = {**{member: asked[member] for member in asked if member in _GIVEN_BACK}, "Keys": []}
    unprocessed[name]["Keys"].append(one.asked)


def _answer(
    responses: Mapping[str, list[bytes]], unprocessed: Mapping[str, Any], consumed: Sequence[bytes]
) -> list[bytes]:
    pieces = [b'"Responses":{']
    for number, (name, items) in enumerate(responses.items()):
        pieces += [b"," if number else b"", orjson.dumps(name), b":[", b",".join(items), b"]"]
    return answer_of([*pieces, b"}"], (b'"UnprocessedKeys":', orjson.dumps(unprocessed)), consumed)
