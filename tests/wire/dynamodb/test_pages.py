from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merganser.model.cluster import Table
from merganser.model.ids import TableId
from merganser.storage.keys import table_range
from merganser.wire.dynamodb.pages import segment_of
from wire.dynamodb.fakes import Cluster

CONSTRAINT = "failed to satisfy constraint: "
INVALID_START = "ValidationException | The provided starting key is invalid: "
SCHEMA = "The provided key element does not match the schema"
START = {"p": {"S": "a"}, "s": {"N": "1"}}


def row(partition: str, sort: int) -> dict[str, Any]:
    return {"p": {"S": partition}, "s": {"N": str(sort)}}


@pytest.fixture(scope="module", params=["leader", "leaderless"])
def full(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three partition keys with sort keys -2 to 4."""
    cluster = Cluster(is_leaderless=request.param == "leaderless")
    cluster.create("tsn", "S", "N")
    cluster.create("str")
    for partition in "abc":
        for sort in range(-2, 5):
            cluster.call("PutItem", {"TableName": "tsn", "Item": row(partition, sort)})
    cluster.call("PutItem", {"TableName": "str", "Item": {"p": {"S": "a"}}})
    yield cluster
    cluster.close()


def follow(cluster: Cluster, operation: str, request: dict[str, Any]) -> list[dict[str, Any]]:
    """Every item, page after page."""
    items: list[dict[str, Any]] = []
    start: dict[str, Any] = {}
    while True:
        page = cluster.call(operation, {**request, **start})
        assert page["Count"] == page["ScannedCount"] == len(page["Items"])
        assert page["Count"] <= request.get("Limit", 1000)
        items += page["Items"]
        if "LastEvaluatedKey" not in page:
            return items
        assert page["LastEvaluatedKey"] == page["Items"][-1]
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def sorts(condition: str | None, *, forward: bool = True, limit: int = 100, **values: Any) -> dict[str, Any]:
    expression = "p = :p" + (f" AND {condition}" if condition else "")
    return {
        "TableName": "tsn",
        "KeyConditionExpression": expression,
        "ExpressionAttributeValues": {
            ":p": {"S": "b"},
            **{f":{name}": {"N": str(value)} for name, value in values.items()},
        },
        "ScanIndexForward": forward,
        "Limit": limit,
    }


@pytest.mark.parametrize(
    ("condition", "values", "expected"),
    [
        (None, {}, range(-2, 5)),
        ("s = :x", {"x": 1}, [1]),
        ("s = :x", {"x": 9}, []),
        ("s < :x", {"x": 1}, [-2, -1, 0]),
        ("s <= :x", {"x": 1}, [-2, -1, 0, 1]),
        ("s > :x", {"x": 1}, [2, 3, 4]),
        ("s >= :x", {"x": 1}, [1, 2, 3, 4]),
        (":x < s", {"x": 1}, [2, 3, 4]),
        ("s BETWEEN :x AND :y", {"x": -1, "y": 1}, [-1, 0, 1]),
        ("s BETWEEN :x AND :y", {"x": 1, "y": 1}, [1]),
    ],
)
@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_query_chooses_by_sort_key_in_order(
    full: Cluster, condition: str, values: Any, expected: Any, forward: bool, limit: int
) -> None:
    items = follow(full, "Query", sorts(condition, forward=forward, limit=limit, **values))
    wanted = [row("b", sort) for sort in expected]
    assert items == (wanted if forward else wanted[::-1])


def test_begins_with_chooses_by_prefix(cluster: Cluster) -> None:
    for sort in ("a", "ab", "ab\U0010ffff", "abc", "ac"):
        cluster.call("PutItem", {"TableName": "tss", "Item": {"p": {"S": "x"}, "s": {"S": sort}}})
    page = cluster.call(
        "Query",
        {
            "TableName": "tss",
            "KeyConditionExpression": "#p = :p AND begins_with(s, :s)",
            "ExpressionAttributeNames": {"#p": "p"},
            "ExpressionAttributeValues": {":p": {"S": "x"}, ":s": {"S": "ab"}},
        },
    )
    assert [item["s"]["S"] for item in page["Items"]] == ["ab", "abc", "ab\U0010ffff"]


@pytest.mark.parametrize("limit", [1, 4, 20, 21, 22])
def test_pages_of_a_scan_are_the_whole_table(full: Cluster, limit: int) -> None:
    whole = full.call("Scan", {"TableName": "tsn"})
    assert whole["Count"] == 21
    assert follow(full, "Scan", {"TableName": "tsn", "Limit": limit}) == whole["Items"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(total=st.integers(1, 300), limit=st.integers(1, 8))
def test_segments_partition_the_table(full: Cluster, total: int, limit: int) -> None:
    whole = full.call("Scan", {"TableName": "tsn"})["Items"]
    request = {"TableName": "tsn", "TotalSegments": total, "Limit": limit}
    found = [item for segment in range(total) for item in follow(full, "Scan", {**request, "Segment": segment})]
    assert found == whole


@given(total=st.integers(1, 1_000_000), data=st.data())
def test_each_segment_begins_where_the_one_before_ends(total: int, data: st.DataObject) -> None:
    table = Table(TableId(1), "tsn", "dynamodb", 3, b"", "u")
    number = data.draw(st.integers(0, total - 1))
    spans = [segment_of(table, {"Segment": one, "TotalSegments": total}) for one in (number, number + 1) if one < total]
    first, end = table_range(table.id)
    assert spans[0].start < spans[0].end
    assert spans[0].end == (spans[1].start if len(spans) == 2 else end).ljust(len(spans[0].end), b"\x00")
    assert number or spans[0].start == first.ljust(len(spans[0].start), b"\x00")


@pytest.mark.parametrize("page_rows_max", [1, 3])
@pytest.mark.parametrize("forward", [True, False])
def test_short_answers_of_the_coordinator_are_resumed(either: Cluster, page_rows_max: int, forward: bool) -> None:
    for sort in range(9):
        either.call("PutItem", {"TableName": "tsn", "Item": row("b", sort)})
    for sort in (0, 3, 4, 5):
        either.call("DeleteItem", {"TableName": "tsn", "Key": row("b", sort)})
    either.stops_after(page_rows_max)
    items = follow(either, "Query", sorts(None, forward=forward, limit=2))
    wanted = [row("b", sort) for sort in (1, 2, 6, 7, 8)]
    assert items == (wanted if forward else wanted[::-1])
    assert len(follow(either, "Scan", {"TableName": "tsn"})) == 5


@pytest.mark.parametrize("forward", [True, False])
def test_a_small_limit_does_not_make_many_reads_of_many_tombstones(leaderless: Cluster, forward: bool) -> None:
    alive = 500 if forward else -1
    leaderless.call("PutItem", {"TableName": "tsn", "Item": row("b", alive)})
    for sort in range(500):
        leaderless.call("DeleteItem", {"TableName": "tsn", "Key": row("b", sort)})
    page = leaderless.call("Query", sorts(None, forward=forward, limit=1))
    assert page["Items"] == [row("b", alive)]
    assert leaderless.ranges_read < 10


def test_page_that_ends_with_the_last_item_still_names_a_key(full: Cluster) -> None:
    assert "LastEvaluatedKey" in full.call("Scan", {"TableName": "tsn", "Limit": 21})
    assert "LastEvaluatedKey" not in full.call("Scan", {"TableName": "tsn", "Limit": 22})
    assert "LastEvaluatedKey" in full.call("Query", sorts(None, limit=7))


def test_page_ends_with_the_item_that_takes_it_to_1_mb(cluster: Cluster) -> None:
    for number in range(4):
        item = {**row("b", number), "x": {"S": "x" * 360_000}}
        cluster.call("PutItem", {"TableName": "tsn", "Item": item})
    page = cluster.call("Query", sorts(None))
    assert page["Count"] == 3
    assert page["LastEvaluatedKey"] == row("b", 2)


def test_count_leaves_the_items_out(full: Cluster) -> None:
    assert full.call("Scan", {"TableName": "tsn", "Select": "COUNT"}) == {"Count": 21, "ScannedCount": 21}
    page = full.call("Query", {**sorts(None, limit=2), "Select": "COUNT"})
    assert page == {"Count": 2, "ScannedCount": 2, "LastEvaluatedKey": row("b", -1)}


def test_query_of_a_table_without_sort_key_has_one_page(full: Cluster) -> None:
    values = {":p": {"S": "a"}}
    page = full.call(
        "Query",
        {"TableName": "str", "KeyConditionExpression": "p = :p", "ExpressionAttributeValues": values, "Limit": 1},
    )
    assert page == {"Count": 1, "ScannedCount": 1, "Items": [{"p": {"S": "a"}}]}


def violation(message: str) -> str:
    return f"ValidationException | 1 validation error detected: {message}"


@pytest.mark.parametrize(
    ("extra", "answer"),
    [
        (
            {"Limit": 0},
            violation(f"Value '0' at 'limit' {CONSTRAINT}Member must have value greater than or equal to 1"),
        ),
        (
            {"Select": "X"},
            violation(
                f"Value 'X' at 'select' {CONSTRAINT}Member must satisfy enum value set: "
                "[SPECIFIC_ATTRIBUTES, COUNT, ALL_ATTRIBUTES, ALL_PROJECTED_ATTRIBUTES]"
            ),
        ),
        (
            {"Select": "SPECIFIC_ATTRIBUTES"},
            violation(
                "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES"
            ),
        ),
        (
            {"Select": "ALL_PROJECTED_ATTRIBUTES"},
            violation("ALL_PROJECTED_ATTRIBUTES can be used only when Querying using an IndexName"),
        ),
        (
            {"Segment": -1, "TotalSegments": 1},
            violation(f"Value '-1' at 'segment' {CONSTRAINT}Member must have value greater than or equal to 0"),
        ),
        (
            {"Segment": 0},
            "ValidationException | The TotalSegments parameter is required but was not present in the request when "
            "Segment parameter is present",
        ),
        (
            {"TotalSegments": 1},
            "ValidationException | The Segment parameter is required but was not present in the request when "
            "parameter TotalSegments is present",
        ),
        (
            {"Segment": 2, "TotalSegments": 2},
            "ValidationException | The Segment parameter is zero-based and must be less than parameter TotalSegments",
        ),
        ({"IndexName": "xyz"}, "ValidationException | The table does not have the specified index: xyz"),
        (
            {"FilterExpression": "a"},
            'ValidationException | Invalid FilterExpression: Syntax error; token: "<EOF>", near: "a"',
        ),
        ({"ExclusiveStartKey": {}}, INVALID_START + SCHEMA),
        ({"ExclusiveStartKey": {"p": {"S": "a"}}}, INVALID_START + SCHEMA),
        ({"ExclusiveStartKey": {**START, "q": {"S": "a"}}}, INVALID_START + SCHEMA),
        ({"ExclusiveStartKey": {**START, "s": {"S": "1"}}}, INVALID_START + SCHEMA),
        (
            {"ExclusiveStartKey": {**START, "s": {"N": "x"}}},
            "ValidationException | The parameter cannot be converted to a numeric value: x",
        ),
        (
            {"ExclusiveStartKey": {**START, "s": {"N": 1}}},
            "SerializationException | NUMBER_VALUE cannot be converted to String",
        ),
        ({"TableName": "nope"}, "ResourceNotFoundException | Requested resource not found"),
    ],
)
def test_wrong_scan_is_refused(full: Cluster, extra: Any, answer: str) -> None:
    assert full.call("Scan", {"TableName": "tsn", **extra}) == answer


def test_starting_key_must_lie_in_the_segment(full: Cluster) -> None:
    requests = [
        {"TableName": "tsn", "TotalSegments": 2, "Segment": segment, "ExclusiveStartKey": START} for segment in (0, 1)
    ]
    answers = [full.call("Scan", request) for request in requests]
    assert "ValidationException | Exclusive start key must lie within the segment" in answers
    assert sum(isinstance(answer, dict) for answer in answers) == 1


@pytest.mark.parametrize(
    ("condition", "start", "answer"),
    [
        (
            None,
            row("a", 1),
            "ValidationException | The provided starting key is outside query boundaries based on provided conditions",
        ),
        (
            "s > :x",
            row("b", 1),
            "ValidationException | The provided starting key does not match the range key predicate",
        ),
        (None, {"p": {"S": "b"}}, INVALID_START + SCHEMA),
        (
            None,
            {"p": {"S": "b"}, "s": {}},
            INVALID_START + "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes",
        ),
        (
            None,
            {"p": {"S": "b"}, "s": {"N": "b"}},
            "ValidationException | The parameter cannot be converted to a numeric value: b",
        ),
        (
            None,
            {"p": {"S": "b"}, "s": {"NS": ["1", "1"]}},
            "ValidationException | Input collection contains duplicates",
        ),
    ],
)
def test_starting_key_must_lie_in_the_query(full: Cluster, condition: str, start: Any, answer: str) -> None:
    values: dict[str, Any] = {"x": 1} if condition else {}
    assert full.call("Query", {**sorts(condition, **values), "ExclusiveStartKey": start}) == answer
