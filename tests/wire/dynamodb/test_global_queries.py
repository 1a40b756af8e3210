"""Query and Scan of global indexes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from wire.dynamodb.fakes import Cluster
from wire.dynamodb.test_index_queries import ITEMS, KEYS, SOME, Item, ask, item, sorts
from wire.dynamodb.test_index_tables import defined, global_, keyed, table

INVALID = "ValidationException | One or more parameter values were invalid: "
START = "ValidationException | The provided starting key is invalid"


@pytest.fixture(scope="module")
def full() -> Iterator[Cluster]:
    """Return a cluster with a table of several global indexes, for tests that only read."""
    cluster = Cluster()
    indexes = [
        global_("all", "l", "n"),
        global_("some", "l", Projection=SOME),
        global_("keys", "n", "l", Projection=KEYS),
        global_("wide", KeySchema=keyed("la", "nbs")),
    ]
    request = table(
        AttributeDefinitions=defined(p="S", s="N", l="S", n="N", a="S", b="S"),
        LocalSecondaryIndexes=None,
        GlobalSecondaryIndexes=indexes,
    )
    assert "TableDescription" in cluster.call("CreateTable", request)
    for one in [*ITEMS, item("x", 7, l="b", a="A6", n=7, b="B5"), item("x", 8, l="b", a="A6", n=5, b="B6")]:
        cluster.call("PutItem", {"TableName": "ind", "Item": one})
    yield cluster
    cluster.close()


def asked(index: str, condition: str, **values: Any) -> dict[str, Any]:
    request = ask(index, condition, **values)
    del request["ExpressionAttributeValues"][":p"]
    return request


@pytest.mark.parametrize("is_forward", [True, False])
@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (asked("all", "l = :l", l="b"), [5, 8, 1, 7]),
        (asked("all", "l = :l AND n > :n", l="b", n=5), [1, 7]),
        (asked("all", "l = :l AND n BETWEEN :n AND :m", l="b", n=2, m=5), [5, 8]),
        (asked("all", "l = :l", l="z"), []),
        (asked("keys", "n = :n AND begins_with(l, :l)", n=7, l="b"), [1, 7]),
        (asked("wide", "l = :l AND a = :a", l="b", a="A6"), [8, 7, 1]),
        (asked("wide", "l = :l AND a = :a AND n >= :n", l="b", a="A6", n=6), [7, 1]),
        (asked("wide", "l = :l AND a = :a AND n = :n AND b <= :b", l="b", a="A6", n=7, b="B5"), [7]),
        (asked("wide", "l = :l AND a = :a AND n = :n AND b = :b AND s > :s", l="b", a="A6", n=7, b="B6", s=0), [1]),
    ],
)
def test_a_query_tells_the_items_that_stand_in_the_index_in_its_order(
    full: Cluster, request_: dict[str, Any], expected: list[int], is_forward: bool
) -> None:
    whole = full.call("Query", {**request_, "ScanIndexForward": is_forward})
    found = sorts(whole)
    keys = [(one["n"]["N"], one["l"]["S"]) for one in whole["Items"]]
    assert found == (expected if is_forward else expected[::-1]) or len(set(keys)) < len(keys)  # equal keys: any order
    assert sorted(found) == sorted(expected)
    paged: list[Item] = []
    start: dict[str, Any] = {}
    while True:
        page = full.call("Query", {**request_, "ScanIndexForward": is_forward, "Limit": 1, **start})
        paged += page["Items"]
        if "LastEvaluatedKey" not in page:
            break
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    assert paged == whole["Items"]


def older(index: str, **conditions: tuple[str, Any]) -> dict[str, Any]:
    """Return a Query with KeyConditions."""
    return {
        "TableName": "ind",
        "IndexName": index,
        "KeyConditions": {
            name: {
                "ComparisonOperator": operator,
                "AttributeValueList": [{"S": value} if isinstance(value, str) else {"N": str(value)}],
            }
            for name, (operator, value) in conditions.items()
        },
    }


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (older("all", l=("EQ", "b"), n=("GT", 5)), [1, 7]),
        (older("wide", l=("EQ", "b"), a=("EQ", "A6")), [1, 7, 8]),
        (older("wide", l=("EQ", "b"), a=("EQ", "A6"), n=("GE", 6)), [1, 7]),
        (older("wide", l=("EQ", "b"), a=("EQ", "A6"), n=("EQ", 7), b=("LE", "B5")), [7]),
        (older("wide", s=("GT", 0), b=("EQ", "B6"), n=("EQ", 7), a=("EQ", "A6"), l=("EQ", "b")), [1]),
    ],
)
def test_the_older_key_conditions_take_all_attributes_of_an_index(
    full: Cluster, request_: dict[str, Any], expected: list[int]
) -> None:
    assert sorted(sorts(full.call("Query", request_))) == expected


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (older("all", l=("EQ", "b"), n=("EQ", 5), a=("EQ", "a")), "Conditions can be of length 1 or 2 only"),
        (older("wide", l=("EQ", "b"), n=("EQ", 5), b=("EQ", "a")), "Query condition missed key schema element: a"),
        (older("wide", l=("EQ", "b"), a=("EQ", "a"), b=("EQ", "a")), "Query condition missed key schema element: n"),
        (
            older("wide", l=("EQ", "b"), a=("EQ", "a"), n=("GT", 5), b=("EQ", "a")),
            "Query key condition not supported",
        ),
        (
            {**older("all", l=("EQ", "b"), n=("EQ", 5), a=("EQ", "a")), "IndexName": None},
            "Conditions can be of length 1 or 2 only",
        ),
    ],
)
def test_older_key_conditions_that_no_index_answers_are_refused(
    full: Cluster, request_: dict[str, Any], answer: str
) -> None:
    assert full.call("Query", request_) == f"ValidationException | {answer}"


@pytest.mark.parametrize(
    ("index", "parameters", "shown"),
    [
        ("all", {}, {"p", "s", "l", "n", "a", "b"}),
        ("all", {"Select": "ALL_ATTRIBUTES"}, {"p", "s", "l", "n", "a", "b"}),
        ("some", {}, {"p", "s", "l", "a"}),
        ("some", {"Select": "ALL_PROJECTED_ATTRIBUTES"}, {"p", "s", "l", "a"}),
        ("some", {"ProjectionExpression": "a, s"}, {"a", "s"}),
    ],
)
def test_a_global_index_shows_what_it_projects(
    full: Cluster, index: str, parameters: dict[str, Any], shown: set[str]
) -> None:
    (found,) = full.call("Query", {**asked(index, "l = :l", l="c"), **parameters})["Items"]
    assert found == {name: value for name, value in ITEMS[0].items() if name in shown}


def test_a_scan_tells_what_stands_in_the_index_in_segments_and_pages(full: Cluster) -> None:
    whole = full.call("Scan", {"TableName": "ind", "IndexName": "keys"})
    assert sorted(sorts(whole)) == [1, 1, 2, 5, 7, 8]
    assert all(one.keys() == {"p", "s", "n", "l"} for one in whole["Items"])
    assert full.scanned_by_segments(3, TableName="ind", IndexName="keys", Limit=2) == whole["Items"]


def test_capacity_is_that_of_the_index(full: Cluster) -> None:
    request = {**asked("some", "l = :l", l="b"), "ReturnConsumedCapacity": "INDEXES"}
    assert full.call("Query", request)["ConsumedCapacity"] == {
        "TableName": "ind",
        "CapacityUnits": 0.5,
        "Table": {"CapacityUnits": 0.0},
        "GlobalSecondaryIndexes": {"some": {"CapacityUnits": 0.5}},
    }


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            {**asked("all", "l = :l", l="b"), "ConsistentRead": True},
            "ValidationException | Consistent reads are not supported on global secondary indexes",
        ),
        (
            {**asked("some", "l = :l", l="b"), "Select": "ALL_ATTRIBUTES"},
            INVALID + "Select type ALL_ATTRIBUTES is not supported for global secondary index some because its "
            "projection type is not ALL",
        ),
        (
            {**asked("some", "l = :l", l="b"), "ProjectionExpression": "b, a, n"},
            INVALID + "Global secondary index some does not project [b, n]",
        ),
        (
            asked("wide", "l = :l", l="b"),
            "ValidationException | Query condition missed key schema element: a",
        ),
        (
            asked("wide", "l = :l AND a > :a", l="b", a="A"),
            "ValidationException | Query key condition not supported",
        ),
        (
            asked("wide", "l = :l AND a = :a AND b = :b", l="b", a="A6", b="B6"),
            "ValidationException | Query condition missed key schema element: n",
        ),
        (
            asked("wide", "l = :l AND a = :a AND n > :n AND b = :b", l="b", a="A6", n=1, b="B6"),
            "ValidationException | Query key condition not supported",
        ),
        (
            asked("a", "l = :l", l="b"),
            "ValidationException | 1 validation error detected: Value 'a' at 'indexName' failed to satisfy constraint: "
            "Member must have length greater than or equal to 3",
        ),
        ({**asked("all", "l = :l", l="b"), "ExclusiveStartKey": item("one", 1, l="b")}, START),
        ({**asked("all", "l = :l", l="b"), "ExclusiveStartKey": item("one", 1, l="b", n="x")}, START),
        (
            {**asked("all", "l = :l", l="b"), "ExclusiveStartKey": item("one", 1, l="a", n=1)},
            "ValidationException | The provided starting key is outside query boundaries based on provided conditions",
        ),
    ],
)
def test_a_query_that_does_not_fit_the_index_is_refused(full: Cluster, request_: Any, answer: str) -> None:
    assert full.call("Query", request_) == answer


def test_an_item_of_the_wrong_type_for_a_global_index_is_not_put(full: Cluster) -> None:
    wrong = {**item("one", 1), "n": {"S": "x"}}
    assert full.call("PutItem", {"TableName": "ind", "Item": wrong}) == (
        INVALID + "Type mismatch for Index Key n Expected: N Actual: S IndexName: all"
    )
    long = {**item("one", 1), "l": {"S": "x" * 2049}}
    assert full.call("PutItem", {"TableName": "ind", "Item": long}) == (
        INVALID + "Size of hashkey has exceeded the maximum size limit of2048 bytes"
    )
