"""Filters and projections: what readers see of items, through every operation that reads."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from merganser.model.consistency import UNSAID
from merganser.model.errors import UnavailableError
from wire.dynamodb.fakes import Cluster, served

P = {"S": "x"}
INVALID = "ValidationException | "
INSIDE = (
    "ValidationException | Key attributes must be scalars; list random access '[]' and map lookup '.' are not allowed: "
    "Key: {}"
)


def item(sort: int) -> dict[str, Any]:
    return {
        "p": P,
        "s": {"N": str(sort)},
        "even": {"BOOL": sort % 2 == 0},
        "m": {"M": {"a": {"N": str(sort)}, "b": {"L": [P, P]}}},
    }


@pytest.fixture
def filled(either: Cluster) -> Cluster:
    """Ten items of one partition key, in a table of either kind."""
    for sort in range(10):
        either.call("PutItem", {"TableName": "tsn", "Item": item(sort)})
    return either


def query(**more: Any) -> dict[str, Any]:
    values = {":p": P, **more.pop("values", {})}
    return {
        "TableName": "tsn",
        "KeyConditionExpression": "p = :p",
        "ExpressionAttributeValues": values,
        **more,
    }


def test_item_is_shown_in_part(filled: Cluster) -> None:
    request = {"TableName": "tsn", "Key": {"p": P, "s": {"N": "3"}}}
    assert filled.call("GetItem", {**request, "ProjectionExpression": "s, m.b[1]"}) == {
        "Item": {"s": {"N": "3"}, "m": {"M": {"b": {"L": [P]}}}}
    }
    names = {"#m": "m"}
    assert filled.call("GetItem", {**request, "ProjectionExpression": "#m.a", "ExpressionAttributeNames": names}) == {
        "Item": {"m": {"M": {"a": {"N": "3"}}}}
    }
    assert filled.call("GetItem", {**request, "ProjectionExpression": "z"}) == {"Item": {}}


def test_batch_shows_parts_and_gives_back_what_it_was_asked(filled: Cluster) -> None:
    asked: dict[str, Any] = {
        "Keys": [{"p": P, "s": {"N": "1"}}, {"p": P, "s": {"N": "99"}}],
        "ProjectionExpression": "#s",
        "ExpressionAttributeNames": {"#s": "s"},
        "ConsistentRead": True,
    }
    answer = filled.call("BatchGetItem", {"RequestItems": {"tsn": asked}})
    assert answer == {"Responses": {"tsn": [{"s": {"N": "1"}}]}, "UnprocessedKeys": {}}
    failures = [UnavailableError("1 of 3 replicas is up")]
    filled.fails(lambda key: failures.pop() if failures else None)
    answer = filled.call("BatchGetItem", {"RequestItems": {"tsn": asked}})
    assert answer["UnprocessedKeys"] == {"tsn": {**asked, "Keys": asked["Keys"][:1]}}


def test_transaction_shows_parts(cluster: Cluster) -> None:
    cluster.call("PutItem", {"TableName": "tsn", "Item": item(1)})
    get = {"TableName": "tsn", "Key": {"p": P, "s": {"N": "1"}}, "ProjectionExpression": "m.a"}
    assert cluster.call("TransactGetItems", {"TransactItems": [{"Get": get}]}) == {
        "Responses": [{"Item": {"m": {"M": {"a": {"N": "1"}}}}}]
    }
    answer = cluster.call("TransactGetItems", {"TransactItems": [{"Get": {**get, "ProjectionExpression": "p[0]"}}]})
    assert answer == INSIDE.format("p")


@pytest.mark.parametrize("limit", [1, 3, 4, 10, 11])
@pytest.mark.parametrize("operation", ["Scan", "Query"])
def test_pages_count_what_is_left_out(filled: Cluster, operation: str, limit: int) -> None:
    view = {"FilterExpression": "even = :yes", "ProjectionExpression": "s", "Limit": limit}
    request = query(values={":yes": {"BOOL": True}}, **view)
    if operation == "Scan":
        del request["KeyConditionExpression"], request["ExpressionAttributeValues"][":p"]
    found, scanned = [], 0
    start: dict[str, Any] = {}
    while True:
        page = filled.call(operation, {**request, **start})
        assert page["Count"] == len(page["Items"])
        assert page["ScannedCount"] <= limit
        found += page["Items"]
        scanned += page["ScannedCount"]
        if "LastEvaluatedKey" not in page:
            break
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    assert found == [{"s": {"N": str(sort)}} for sort in range(0, 10, 2)]
    assert scanned == 10


def test_count_counts_what_the_filter_lets_through(filled: Cluster) -> None:
    request = query(values={":v": {"N": "7"}}, FilterExpression="m.a >= :v", Select="COUNT")
    assert filled.call("Query", request) == {"Count": 3, "ScannedCount": 10}


def test_scan_may_filter_by_key_attributes_and_query_may_not(filled: Cluster) -> None:
    scan = {"TableName": "tsn", "FilterExpression": "s > :s", "ExpressionAttributeValues": {":s": {"N": "7"}}}
    assert filled.call("Scan", scan)["Count"] == 2
    answer = filled.call("Query", query(values={":s": {"N": "7"}}, FilterExpression="size(m) = :s OR s > :s"))
    assert answer == (
        "ValidationException | Filter Expression can only contain non-primary key attributes: Primary key attribute: s"
    )


@pytest.mark.parametrize(
    ("operation", "request_", "answer"),
    [
        pytest.param("Scan", {"TableName": "tsn", "ProjectionExpression": "p.q"}, INSIDE.format("p"), id="projection"),
        pytest.param(
            "Scan",
            {"TableName": "tsn", "FilterExpression": "NOT attribute_exists(s[0])"},
            INSIDE.format("s"),
            id="filter",
        ),
        pytest.param(
            "GetItem",
            {"TableName": "tsn", "Key": {"p": P, "s": {"N": "1"}}, "ProjectionExpression": "a, s.a"},
            INSIDE.format("s"),
            id="item",
        ),
        pytest.param(
            "Query",
            query(FilterExpression="a = :v", ProjectionExpression="a, a"),
            INVALID + "Invalid ProjectionExpression: Two document paths overlap with each other; "
            "must remove or rewrite one of these paths; path one: [a], path two: [a]",
            id="projection before filter",
        ),
        pytest.param(
            "Query",
            query(FilterExpression="a = :v", KeyConditionExpression="p"),
            INVALID + "Invalid FilterExpression: An expression attribute value used in expression is not defined; "
            "attribute value: :v",
            id="filter before key condition",
        ),
        pytest.param(
            "Query",
            query(values={":v": P, ":w": P}, FilterExpression="a = :v"),
            INVALID + "Value provided in ExpressionAttributeValues unused in expressions: keys: {:w}",
            id="unused in all of them",
        ),
        pytest.param(
            "Scan",
            {"TableName": "tsn", "ProjectionExpression": "a", "Select": "COUNT"},
            f"{INVALID}1 validation error detected: "
            "Cannot specify the ProjectionExpression when choosing to get only the Count",
            id="count of parts",
        ),
    ],
)
def test_wrong_view_is_refused(filled: Cluster, operation: str, request_: Any, answer: str) -> None:
    assert filled.call(operation, request_) == answer


def test_specific_attributes_are_those_of_the_projection(filled: Cluster) -> None:
    page = filled.call(
        "Scan", {"TableName": "tsn", "ProjectionExpression": "s", "Select": "SPECIFIC_ATTRIBUTES", "Limit": 1}
    )
    assert page["Items"] == [{"s": {"N": "0"}}]
    assert page["LastEvaluatedKey"] == {"p": P, "s": {"N": "0"}}


def test_others_get_turns_while_a_filter_goes_through_a_page() -> None:
    cluster = Cluster()
    cluster.create("str")
    for number in range(50):
        item = {"p": {"S": str(number)}, "l": {"L": [{"N": "1"}] * 1000}}
        cluster.call("PutItem", {"TableName": "str", "Item": item})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def scanned(request: dict[str, Any]) -> int:
        counting = asyncio.ensure_future(count())
        try:
            before = turns
            await served(cluster.dynamodb, "Scan", orjson.dumps(request), UNSAID)
            return turns - before
        finally:
            counting.cancel()

    unfiltered = cluster.run(scanned({"TableName": "str"}))
    values = {":v": {"S": "x"}}
    request = {
        "TableName": "str",
        "FilterExpression": " OR ".join(["contains(l, :v)"] * 9),
        "ExpressionAttributeValues": values,
    }
    assert cluster.run(scanned(request)) >= unfiltered + 5
    cluster.close()
