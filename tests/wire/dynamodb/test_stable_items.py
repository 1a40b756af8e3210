"""Pages of Scan and Query while items come and go: what stays is told exactly once, in its order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wire.dynamodb.fakes import Cluster, served

PLACES = [(partition, sort) for partition in "uvwxyz" for sort in range(-3, 4)]
places = st.sampled_from(PLACES)
writes = st.lists(st.tuples(places, st.booleans()), max_size=6)
"""Between two pages: an item of a place comes, or goes."""


def key(place: tuple[str, int]) -> dict[str, Any]:
    return {"p": {"S": place[0]}, "s": {"N": str(place[1])}}


def place_of(item: dict[str, Any]) -> tuple[str, int]:
    return item["p"]["S"], int(item["s"]["N"])


@pytest.fixture(scope="module", params=["leader", "leaderless"])
def shared(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(is_leaderless=request.param == "leaderless")
    cluster.create("tab", "S", "N")
    yield cluster
    cluster.close()


def pages(cluster: Cluster, operation: str, request: dict[str, Any], changes: list[Any], stable: Any) -> list[Any]:
    """The places that all pages tell, with some changes of other places after each."""
    told: list[Any] = []
    start: dict[str, Any] = {}
    left = list(changes)
    while True:
        page = cluster.call(operation, {"TableName": "tab", **request, **start})
        told += map(place_of, page["Items"])
        if "LastEvaluatedKey" not in page:
            return told
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        for place, is_there in left.pop() if left else ():
            if place not in stable:
                put(cluster, place) if is_there else delete(cluster, place)


def put(cluster: Cluster, place: tuple[str, int]) -> None:
    assert cluster.call("PutItem", {"TableName": "tab", "Item": key(place)}) == {}


def delete(cluster: Cluster, place: tuple[str, int]) -> None:
    assert cluster.call("DeleteItem", {"TableName": "tab", "Key": key(place)}) == {}


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stable=st.frozensets(places),
    stock=st.frozensets(places),
    changes=st.lists(writes, max_size=12),
    limit=st.integers(1, 5),
    rows_max=st.integers(1, 3),
    segments=st.integers(1, 3),
)
def test_what_stays_is_told_once(
    shared: Cluster,
    stable: frozenset[Any],
    stock: frozenset[Any],
    changes: list[Any],
    limit: int,
    rows_max: int,
    segments: int,
) -> None:
    shared.kept.clear()
    shared.stops_after(rows_max)
    for place in stable | stock:
        put(shared, place)
    request: dict[str, Any] = {"Limit": limit, "TotalSegments": segments}
    told: list[Any] = []
    for segment in range(segments):
        told += pages(shared, "Scan", {**request, "Segment": segment}, changes, stable)
    assert sorted(place for place in told if place in stable) == sorted(stable)
    assert len(told) == len(set(told))
    for is_forward in (True, False):
        query = {
            "KeyConditionExpression": "p = :p",
            "ExpressionAttributeValues": {":p": {"S": "x"}},
            "ScanIndexForward": is_forward,
            "Limit": limit,
        }
        told = pages(shared, "Query", query, changes, stable)
        assert told == sorted(set(told), reverse=not is_forward)
        assert stable & set(told) == {place for place in stable if place[0] == "x"}


def test_readers_and_writers_at_once_do_not_disturb_each_other(cluster: Cluster) -> None:
    stable = [place for place in PLACES if place[1] % 2]
    passing = [place for place in PLACES if not place[1] % 2]
    running = True

    async def call(operation: str, request: dict[str, Any]) -> Any:
        answer = await served(cluster.dynamodb, operation, orjson.dumps({"TableName": "tsn", **request}))
        await asyncio.sleep(0)
        return orjson.loads(answer if isinstance(answer, bytes) else b"".join(answer))

    async def write() -> None:
        while running:
            for place in passing:
                await call("PutItem", {"Item": key(place)})
            for place in passing:
                await call("DeleteItem", {"Key": key(place)})

    async def read(limit: int) -> list[Any]:
        told: list[Any] = []
        start: dict[str, Any] = {}
        while True:
            page = await call("Scan", {"Limit": limit, "ConsistentRead": True, **start})
            told += map(place_of, page["Items"])
            if "LastEvaluatedKey" not in page:
                return told
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def scenario() -> list[list[Any]]:
        nonlocal running
        for place in stable:
            await call("PutItem", {"Item": key(place)})
        writer = asyncio.create_task(write())
        try:
            return await asyncio.gather(*[read(limit) for limit in (1, 2, 3, 5, 7) * 2])
        finally:
            running = False
            await writer

    for told in cluster.run(scenario()):
        assert len(told) == len(set(told))
        assert set(stable) <= set(told)
