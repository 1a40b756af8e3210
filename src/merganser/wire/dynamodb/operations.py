"""The operations, by name: JSON in, JSON out.

One request goes straight down: parse, JSON types (`shapes`), constraints, parameters, the table, the
key, the cluster. What DynamoDB would find first is said first. Attribute values are checked while
they are brought into normal form; only when a request turns out wrong are they looked at for JSON
types as well, because DynamoDB finds those before anything else.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

import orjson

from merganser.model.consistency import UNSAID, Levels
from merganser.model.errors import RequestError, TableNotFoundError
from merganser.wire.dynamodb import shapes
from merganser.wire.dynamodb.administration import Administration
from merganser.wire.dynamodb.attributes import TooLargeError
from merganser.wire.dynamodb.batches import batch_get_item, batch_write_item
from merganser.wire.dynamodb.errors import SerializationError
from merganser.wire.dynamodb.expiry import Expiries
from merganser.wire.dynamodb.metering import Meters
from merganser.wire.dynamodb.pages import scan
from merganser.wire.dynamodb.queries import query
from merganser.wire.dynamodb.reads import get_item
from merganser.wire.dynamodb.service_operations import ServiceOperations
from merganser.wire.dynamodb.session import Services, Session
from merganser.wire.dynamodb.tagging import list_tags_of_resource, tag_resource, untag_resource
from merganser.wire.dynamodb.transactions import transact_get_items, transact_write_items
from merganser.wire.dynamodb.unserved import unknown_operation
from merganser.wire.dynamodb.writes import delete_item, put_item, update_item

REQUEST_TIMEOUT_S: Final = 10.0  # SDKs give up after 60 s, and retry long before that is of use

Answer = bytes | list[bytes]
"""JSON, in pieces if that saves copying."""
Operation = Callable[[Session, dict[str, Any]], Answer | Coroutine[Any, Any, Answer]]
"""Answers at once if it can."""


class DynamoDB:
    """DynamoDB's API over a cluster."""

    def __init__(
        self,
        services: Services,
        *,
        rng: random.Random,
        region: str = "us-east-1",
        account: str = "000000000000",
        host: str = "localhost:8000",
        timeout_s: float = REQUEST_TIMEOUT_S,
        table_delay_ms: int = 0,
    ) -> None:
        """Serve the tables of a cluster.

        Args:
            services: of this node.
            rng: draws table ids.
            region: what ARNs say to those who sign for none.
            account: what ARNs say.
            host: where clients reach this node, host:port.
            timeout_s: how long a request may take.
            table_delay_ms: how long tables, and their time to live, are described as under way.
        """
        self._meters = Meters(services)
        self._timeout_s = timeout_s
        tables = Administration(
            wall_us=services.wall_us, rng=rng, region=region, account=account, delay_ms=table_delay_ms
        )
        expiries = Expiries(rng=rng, delay_ms=table_delay_ms)
        service = ServiceOperations(host=host)
        self._operations: Mapping[str, Operation] = {
            "CreateTable": tables.create_table,
            "UpdateTable": tables.update_table,
            "DescribeTable": tables.describe_table,
            "DeleteTable": tables.delete_table,
            "ListTables": tables.list_tables,
            "TagResource": tag_resource,
            "UntagResource": untag_resource,
            "ListTagsOfResource": list_tags_of_resource,
            "UpdateTimeToLive": expiries.update_time_to_live,
            "DescribeTimeToLive": expiries.describe_time_to_live,
            "DescribeLimits": service.describe_limits,
            "DescribeEndpoints": service.describe_endpoints,
            "DescribeContinuousBackups": service.describe_continuous_backups,
            "PutItem": put_item,
            "GetItem": get_item,
            "DeleteItem": delete_item,
            "UpdateItem": update_item,
            "BatchWriteItem": batch_write_item,
            "BatchGetItem": batch_get_item,
            "TransactWriteItems": transact_write_items,
            "TransactGetItems": transact_get_items,
            "Scan": scan,
            "Query": query,
        }

    @property
    def operations(self) -> Iterable[str]:
        """Their names."""
        return self._operations.keys()

    def call(
        self, operation: str, body: bytes, levels: Levels = UNSAID, *, region: str | None = None
    ) -> Answer | Coroutine[Any, Any, Answer]:
        """Serve one request and return its answer, or what to await for it.

        Args:
            operation: DynamoDB's name of it.
            body: JSON.
            levels: the consistency that the request asks for; unsaid leaves it to ConsistentRead and QUORUM.
            region: that ARNs in the answer name; none: that of this node.

        Raises:
            ApiError: with DynamoDB's type and text.
            UnavailableError: nothing was written.
            UnknownOutcomeError: it may have been written.
        """
        serve = self._operations.get(operation)
        if serve is None:
            raise unknown_operation(operation)
        request = _parsed(body)
        shapes.check(operation, request, deep=False)
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        session = self._meters.session(levels=levels, deadline=deadline)
        if region is not None:
            session.region = region
        try:
            answer = serve(session, request)
        except RequestError as error:
            _look_for_worse(operation, body, error)
            raise
        if isinstance(answer, (bytes, list)):  # a tuple: `bytes | list` would be put together at each call
            return answer
        return _awaited(answer, operation, body, serve, session, request)


async def _awaited(
    answer: Coroutine[Any, Any, Answer],
    operation: str,
    body: bytes,
    serve: Operation,
    session: Session,
    request: dict[str, Any],
) -> Answer:
    try:
        try:
            return await answer
        except TableNotFoundError:  # dropped while we looked, and perhaps made anew: its key has another id
            again = serve(session, request)
            return again if isinstance(again, (bytes, list)) else await again
    except RequestError as error:
        _look_for_worse(operation, body, error)
        raise


def _look_for_worse(operation: str, body: bytes, error: RequestError) -> None:
    """Raise instead of ``error`` what DynamoDB would have said first, if there is any."""
    if not isinstance(error, TooLargeError):  # another second, to find what matters less
        shapes.check(operation, _parsed(body), deep=True)


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise SerializationError from None
