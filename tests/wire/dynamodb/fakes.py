"""A cluster of one process: both kinds of tables, and the catalog, over dicts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import orjson
from sortedcontainers import SortedDict

from merganser.model.consistency import UNSAID, Consistency, Levels
from merganser.net.http import Application, Request, Response
from merganser.wire.dynamodb.errors import Fault, fault_of
from merganser.wire.dynamodb.operations import DynamoDB
from merganser.wire.dynamodb.session import Services
from wire.dynamodb.fake_catalog import FakeCatalog
from wire.dynamodb.fake_services import NOW_US, FakeCoordinator, FakeCounting, FakeLeaderBased, FakeTransactions

__all__ = ["NOW_US", "Cluster", "answered", "served"]

T = TypeVar("T")


async def served(
    dynamodb: DynamoDB, operation: str, body: bytes, levels: Levels = UNSAID, *, region: str | None = None
) -> bytes | list[bytes]:
    """Wait for the answer if it is not there at once."""
    answer = dynamodb.call(operation, body, levels, region=region)
    return answer if isinstance(answer, bytes | list) else await answer


async def answered(application: Application, request: Request) -> Response:
    """Wait for the answer if it is not there at once."""
    answer = application(request)
    return answer if isinstance(answer, Response) else await answer


class Cluster:
    """A DynamoDB over the fakes, called as clients call it."""

    def __init__(self, *, is_leaderless: bool = False, table_delay_ms: int = 0) -> None:
        """``is_leaderless`` is of the tables that `create` makes."""
        self.is_leaderless = is_leaderless
        self.coordinator = FakeCoordinator()
        self.leader_based = FakeLeaderBased()
        self.catalog = FakeCatalog(self.coordinator, self.leader_based)
        self.transactions = FakeTransactions(self.leader_based)
        self.counting = FakeCounting(self.leader_based)
        services = Services(
            self.coordinator,  # type: ignore[arg-type]
            self.leader_based,  # type: ignore[arg-type]
            self.transactions,  # type: ignore[arg-type]
            self.catalog,  # type: ignore[arg-type]
            self.counting,  # type: ignore[arg-type]
        )
        self._services = services
        self.dynamodb = self.another(table_delay_ms=table_delay_ms)
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        self._loop.close()

    def another(self, *, table_delay_ms: int = 0) -> DynamoDB:
        """Return the API as another node of the cluster serves it."""
        return DynamoDB(self._services, rng=random.Random(7), table_delay_ms=table_delay_ms)

    def passes(self, ms: int) -> None:
        """Let the clock go on."""
        self.coordinator.now_us += ms * 1000

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def call(self, operation: str, request: Any, level: Consistency | None = None) -> Any:
        """Return the answer, or "Type | message" of the error."""
        answer = self._answer(operation, request, level)
        if isinstance(answer, Fault):
            return f"{answer.kind.partition('#')[2]} | {answer.message}"
        return orjson.loads(answer if isinstance(answer, bytes) else b"".join(answer))

    def fault(self, operation: str, request: Any) -> Fault:
        """Return the error, as it goes on the wire."""
        answer = self._answer(operation, request, None)
        assert isinstance(answer, Fault), answer
        return answer

    def fault_or_none(self, operation: str, request: Any) -> Fault | None:
        """Return the error, if there is one."""
        answer = self._answer(operation, request, None)
        return answer if isinstance(answer, Fault) else None

    def fault_beside_others(self, operation: str, request: Any) -> tuple[Fault, int]:
        """Return the error, and how many turns others had meanwhile."""
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = self._loop.create_task(others())
        try:
            return self.fault(operation, request), turns
        finally:
            other.cancel()
            self._loop.run_until_complete(asyncio.wait([other]))

    def _answer(self, operation: str, request: Any, level: Consistency | None) -> bytes | list[bytes] | Fault:
        body = request if isinstance(request, bytes) else orjson.dumps(request)
        try:
            levels = UNSAID if level is None else Levels(level, level)
            return self.run(served(self.dynamodb, operation, body, levels))
        except Exception as error:
            fault = fault_of(error)
            if fault.status == 500 and "outcome" not in fault.message:
                raise
            return fault

    @property
    def kept(self) -> SortedDict[bytes, Any]:
        """What is stored in tables that `create` made."""
        return self.coordinator.rows if self.is_leaderless else self.leader_based.items

    @property
    def ranges_read(self) -> int:
        """How many reads of ranges there were."""
        return self.coordinator.ranges_read + self.leader_based.ranges_read

    def fails(self, failure: Callable[[bytes], Exception | None]) -> None:
        """Fail whatever is done to the keys for which ``failure`` returns an error."""
        self.coordinator.failure = self.leader_based.failure = failure

    def stops_after(self, rows: int) -> None:
        """Read no more than so many rows of a range at once."""
        self.coordinator.page_rows_max = self.leader_based.page_items_max = rows

    def scanned_by_segments(self, segments: int, **request: Any) -> list[Any]:
        """Return the items that a Scan tells, segment after segment, each page by page."""
        found: list[Any] = []
        for segment in range(segments):
            place: dict[str, Any] = {"Segment": segment, "TotalSegments": segments}
            while True:
                page = self.call("Scan", {**request, **place})
                found += page["Items"]
                if "LastEvaluatedKey" not in page:
                    break
                place["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return found

    def create(self, name: str, partition: str = "S", sort: str | None = None) -> None:
        keys = [("p", partition, "HASH")] + ([("s", sort, "RANGE")] if sort else [])
        answer = self.call(
            "CreateTable",
            {
                "TableName": name,
                "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kind} for key, kind, _ in keys],
                "KeySchema": [{"AttributeName": key, "KeyType": role} for key, _, role in keys],
                "BillingMode": "PAY_PER_REQUEST",
                "Tags": [{"Key": "merganser:replication", "Value": "leaderless"}] if self.is_leaderless else [],
            },
        )
        assert isinstance(answer, dict), answer
