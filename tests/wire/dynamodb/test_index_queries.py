"""Query and Scan by IndexName, and what writes have to keep to for the sake of indexes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from wire.dynamodb.fakes import Cluster
from wire.dynamodb.test_index_tables import defined, local, table

INVALID = "ValidationException | One or more parameter values were invalid: "
START = "ValidationException | The provided starting key is invalid"

Item = dict[str, dict[str, Any]]


def item(p: str, s: int, **others: Any) -> Item:
    """Return an item; of others a text is a string, a number a number."""
    values = {name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in others.items()}
    return {"p": {"S": p}, "s": {"N": str(s)}, **values}


ITEMS = [
    item("one", 1, l="c", n=3, a="A1", b="B1"),
    item("one", 2, l="a", n=-1, a="A2", b="B2"),
    item("one", 3, l="b", a="A3", b="B3"),
    item("one", 4, n=10, a="A4", b="B4"),
    item("one", 5, l="b", n=2, a="A5"),
    item("two", 1, l="b", n=7, a="A6", b="B6"),
]
SOME = {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["a"]}
KEYS = {"ProjectionType": "KEYS_ONLY"}


@pytest.fixture(scope="module")
def full() -> Iterator[Cluster]:
    """Return a cluster with a table of several local indexes, for tests that only read."""
    cluster = Cluster()
    created(cluster)
    for one in ITEMS:
        cluster.call("PutItem", {"TableName": "ind", "Item": one})
    yield cluster
    cluster.close()


def created(cluster: Cluster) -> None:
    indexes = [local("all"), local("some", Projection=SOME), local("keys", "p", "n", Projection=KEYS)]
    request = table(AttributeDefinitions=defined(p="S", s="N", l="S", n="N"), LocalSecondaryIndexes=indexes)
    assert "TableDescription" in cluster.call("CreateTable", request)


def ask(index: str, condition: str = "p = :p", **values: Any) -> dict[str, Any]:
    given = {"p": "one", **values}
    return {
        "TableName": "ind",
        "IndexName": index,
        "KeyConditionExpression": condition,
        "ExpressionAttributeValues": {
            f":{name}": {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in given.items()
        },
    }


def sorts(answer: Any) -> list[int]:
    assert isinstance(answer, dict), answer
    return [int(one["s"]["N"]) for one in answer["Items"]]


@pytest.mark.parametrize("is_forward", [True, False])
@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ask("all"), [2, 3, 5, 1]),
        (ask("keys"), [2, 5, 1, 4]),
        (ask("all", "p = :p AND l = :l", l="b"), [3, 5]),
        (ask("all", "p = :p AND l < :l", l="b"), [2]),
        (ask("all", "p = :p AND l <= :l", l="b"), [2, 3, 5]),
        (ask("all", "p = :p AND l > :l", l="a"), [3, 5, 1]),
        (ask("all", "p = :p AND l >= :l", l="b"), [3, 5, 1]),
        (ask("all", "p = :p AND l BETWEEN :l AND :m", l="a", m="b"), [2, 3, 5]),
        (ask("all", "p = :p AND begins_with(l, :l)", l="b"), [3, 5]),
        (ask("keys", "p = :p AND n > :n", n=-1), [5, 1, 4]),
        (ask("keys", "p = :p AND n BETWEEN :n AND :m", n=-5, m=3), [2, 5, 1]),
        (ask("all", "p = :p AND l = :l", p="two", l="b"), [1]),
        (ask("all", "p = :p", p="three"), []),
    ],
)
def test_a_query_tells_the_items_that_stand_in_the_index_in_its_order(
    full: Cluster, request_: dict[str, Any], expected: list[int], is_forward: bool
) -> None:
    whole = full.call("Query", {**request_, "ScanIndexForward": is_forward, "ConsistentRead": True})
    assert sorts(whole) == (expected if is_forward else expected[::-1])
    paged: list[int] = []
    start: dict[str, Any] = {}
    while True:
        page = full.call("Query", {**request_, "ScanIndexForward": is_forward, "Limit": 1, **start})
        paged += sorts(page)
        if "LastEvaluatedKey" not in page:
            break
        assert page["LastEvaluatedKey"].keys() == {"p", "s", "n" if request_["IndexName"] == "keys" else "l"}
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    assert paged == sorts(whole)


@pytest.mark.parametrize(
    ("index", "parameters", "shown"),
    [
        ("all", {}, {"p", "s", "l", "n", "a", "b"}),
        ("some", {}, {"p", "s", "l", "a"}),
        ("some", {"Select": "ALL_PROJECTED_ATTRIBUTES"}, {"p", "s", "l", "a"}),
        ("some", {"Select": "ALL_ATTRIBUTES"}, {"p", "s", "l", "n", "a", "b"}),
        ("some", {"ProjectionExpression": "a, l"}, {"a", "l"}),
        ("some", {"ProjectionExpression": "a, b"}, {"a", "b"}),
        ("some", {"AttributesToGet": ["b"]}, {"b"}),
        ("keys", {}, {"p", "s", "n"}),
        ("keys", {"ProjectionExpression": "l, n"}, {"l", "n"}),
        ("keys", {"FilterExpression": "b = :b"}, {"p", "s", "n"}),
    ],
)
def test_a_local_index_shows_what_it_projects_and_fetches_what_is_asked_for(
    full: Cluster, index: str, parameters: dict[str, Any], shown: set[str]
) -> None:
    request = ask(
        index, "p = :p AND n = :k" if index == "keys" else "p = :p AND l = :k", k=3 if index == "keys" else "c"
    )
    if "FilterExpression" in parameters:
        request["ExpressionAttributeValues"][":b"] = {"S": "B1"}
    if "AttributesToGet" in parameters:
        del request["KeyConditionExpression"], request["ExpressionAttributeValues"]
        request["KeyConditions"] = {
            "p": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "one"}]},
            "l": {"ComparisonOperator": "EQ", "AttributeValueList": [{"S": "c"}]},
        }
    answer = full.call("Query", {**request, **parameters})
    (found,) = answer["Items"]
    assert found == {name: value for name, value in ITEMS[0].items() if name in shown}


def test_a_filter_takes_place_after_the_limit_and_may_look_at_the_keys_of_the_table(full: Cluster) -> None:
    request = ask("all", s=3)
    answer = full.call("Query", {**request, "FilterExpression": "s > :s", "Limit": 3})
    assert (sorts(answer), answer["ScannedCount"]) == ([5], 3)
    assert full.call("Query", {**ask("all", l="a"), "FilterExpression": "l > :l"}) == (
        "ValidationException | Filter Expression can only contain non-primary key attributes: Primary key attribute: l"
    )


def test_a_scan_of_an_index_tells_what_stands_in_it_in_segments_and_pages(full: Cluster) -> None:
    whole = full.call("Scan", {"TableName": "ind", "IndexName": "keys"})
    assert sorted(sorts(whole)) == [1, 1, 2, 4, 5]
    assert all(one.keys() == {"p", "s", "n"} for one in whole["Items"])
    assert full.scanned_by_segments(3, TableName="ind", IndexName="keys", Limit=2) == whole["Items"]
    counted = full.call("Scan", {"TableName": "ind", "IndexName": "all", "Select": "COUNT", "ConsistentRead": True})
    assert counted == {"Count": 5, "ScannedCount": 5}


def test_capacity_is_counted_of_the_index_and_of_what_is_fetched_from_the_table(full: Cluster) -> None:
    request = {**ask("some"), "ReturnConsumedCapacity": "INDEXES"}
    assert full.call("Query", request)["ConsumedCapacity"] == {
        "TableName": "ind",
        "CapacityUnits": 0.5,
        "Table": {"CapacityUnits": 0.0},
        "LocalSecondaryIndexes": {"some": {"CapacityUnits": 0.5}},
    }
    fetching = {**request, "Select": "ALL_ATTRIBUTES", "ConsistentRead": True}
    assert full.call("Query", fetching)["ConsumedCapacity"] == {
        "TableName": "ind",
        "CapacityUnits": 5.0,
        "Table": {"CapacityUnits": 4.0},
        "LocalSecondaryIndexes": {"some": {"CapacityUnits": 1.0}},
    }


def test_local_indexes_are_described_with_what_stands_in_them(full: Cluster) -> None:
    described = full.call("DescribeTable", {"TableName": "ind"})["Table"]
    found = {one["IndexName"]: (one["ItemCount"], one["IndexSizeBytes"]) for one in described["LocalSecondaryIndexes"]}
    sizes = {"all": 0, "some": 0, "keys": 0}
    for one in ITEMS:  # names of a byte, texts and numbers
        bytes_of = {name: 1 + (len(value.get("S", "")) or 2 + ("-" in value["N"])) for name, value in one.items()}
        sizes["all"] += sum(bytes_of.values()) if "l" in one else 0
        sizes["some"] += sum(bytes_of[name] for name in "psla" if name in one) if "l" in one else 0
        sizes["keys"] += sum(bytes_of[name] for name in "psn") if "n" in one else 0
    assert found == {"all": (5, sizes["all"]), "some": (5, sizes["some"]), "keys": (5, sizes["keys"])}
    assert described["ItemCount"] == len(ITEMS)


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (ask("none"), "ValidationException | The table does not have the specified index: none"),
        (ask("all", "l = :p"), "ValidationException | Query condition missed key schema element: p"),
        (ask("all", "p = :p AND s = :s", s=1), "ValidationException | Query condition missed key schema element: l"),
        (
            ask("all", "p = :p AND l = :l", l=1),
            INVALID + "Condition parameter type does not match schema type",
        ),
        (ask("all", "p > :p"), "ValidationException | Query key condition not supported"),
        (
            ask("all", "p = :p AND l = :l AND s = :s", l="a", s=1),
            "ValidationException | Conditions can be of length 1 or 2 only",
        ),
        ({**ask("all"), "ExclusiveStartKey": item("one", 1)}, START),
        ({**ask("all"), "ExclusiveStartKey": item("one", 1, n=1)}, START),
        ({**ask("all"), "ExclusiveStartKey": item("one", 1, l=1)}, START),
        (
            {**ask("all"), "ExclusiveStartKey": {**item("one", 1, l="a"), "s": {"S": "1"}}},
            START + ": The provided key element does not match the schema",
        ),
        (
            {**ask("all"), "ExclusiveStartKey": item("two", 1, l="a")},
            "ValidationException | The provided starting key is outside query boundaries based on provided conditions",
        ),
        (
            {**ask("all", "p = :p AND l > :l", l="b"), "ExclusiveStartKey": item("one", 1, l="a")},
            "ValidationException | The provided starting key does not match the range key predicate",
        ),
        (
            {**ask("all"), "ProjectionExpression": "l.x"},
            "ValidationException | Key attributes must be scalars; list random access '[]' and map lookup '.' are not "
            "allowed: IndexKey: l",
        ),
    ],
)
def test_a_query_that_does_not_fit_the_index_is_refused(full: Cluster, request_: Any, answer: str) -> None:
    assert full.call("Query", request_) == answer


def test_a_page_holds_1_mb_of_what_is_fetched_from_the_table(cluster: Cluster) -> None:
    created(cluster)
    for number in range(4):
        cluster.call("PutItem", {"TableName": "ind", "Item": item("one", number, n=1, big="x" * 400_000)})
    fetching = {**ask("keys"), "Select": "ALL_ATTRIBUTES", "ReturnConsumedCapacity": "INDEXES"}
    page = cluster.call("Query", fetching)
    assert sorts(page) == [0, 1, 2]
    assert page["LastEvaluatedKey"] == item("one", 2, n=1)
    assert page["ConsumedCapacity"]["LocalSecondaryIndexes"] == {"keys": {"CapacityUnits": 0.5}}
    assert sorts(cluster.call("Query", {**fetching, "ExclusiveStartKey": page["LastEvaluatedKey"]})) == [3]
    assert sorts(cluster.call("Query", ask("keys"))) == [0, 1, 2, 3]


def test_an_index_follows_what_is_written(cluster: Cluster) -> None:
    created(cluster)
    for one in ITEMS[:3]:
        cluster.call("PutItem", {"TableName": "ind", "Item": one})
    key = {"p": {"S": "one"}, "s": {"N": "2"}}
    update = {"TableName": "ind", "Key": key, "UpdateExpression": "SET l = :l REMOVE n"}
    cluster.call("UpdateItem", {**update, "ExpressionAttributeValues": {":l": {"S": "z"}}})
    assert sorts(cluster.call("Query", ask("all"))) == [3, 1, 2]
    assert sorts(cluster.call("Query", ask("keys"))) == [1]
    cluster.call("DeleteItem", {"TableName": "ind", "Key": {"p": {"S": "one"}, "s": {"N": "3"}}})
    put = {"Put": {"TableName": "ind", "Item": item("one", 9, l="m")}}
    cluster.call("TransactWriteItems", {"TransactItems": [put]})
    assert sorts(cluster.call("Query", ask("all"))) == [1, 9, 2]


MISMATCH = "Type mismatch for Index Key l Expected: S Actual: N IndexName: all"
EMPTY = (
    "One or more parameter values are not valid. A value specified for a secondary index key is not supported. The "
    "AttributeValue for a key attribute cannot contain an empty string value. IndexName: all, IndexKey: l"
)
LONG = "Aggregated size of all range keys has exceeded the size limit of 1024 bytes"


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ({"N": "1"}, INVALID + MISMATCH),
        ({"S": ""}, f"ValidationException | {EMPTY}"),
        ({"S": "x" * 1025}, INVALID + LONG),
    ],
)
def test_no_item_is_put_that_could_not_stand_in_an_index(cluster: Cluster, value: Any, answer: str) -> None:
    created(cluster)
    wrong = {**item("one", 1), "l": value}
    assert cluster.call("PutItem", {"TableName": "ind", "Item": wrong}) == answer
    batch = {"ind": [{"PutRequest": {"Item": item("one", 2)}}, {"PutRequest": {"Item": wrong}}]}
    assert cluster.call("BatchWriteItem", {"RequestItems": batch}) == answer
    put = {"Put": {"TableName": "ind", "Item": wrong}}
    fault = cluster.fault("TransactWriteItems", {"TransactItems": [put]})
    assert [reason["Code"] for reason in fault.members["CancellationReasons"]] == ["ValidationError"]
    assert f"ValidationException | {fault.members['CancellationReasons'][0]['Message']}" == answer
    assert not cluster.kept


@pytest.mark.parametrize(
    ("expression", "values", "answer"),
    [
        ("SET l = :v", {":v": {"N": "1"}}, INVALID + MISMATCH),
        (
            "SET l = a",
            {},
            "ValidationException | The update expression attempted to update the secondary index key to unsupported "
            "type",
        ),
        (
            "SET l = :v",
            {":v": {"S": ""}},
            "ValidationException | One or more parameter values are not valid. The update expression attempted to "
            "update a secondary index key to a value that is not supported. The AttributeValue for a key attribute "
            "cannot contain an empty string value.",
        ),
        ("SET l = :v", {":v": {"S": "x" * 1025}}, INVALID + LONG),
        (
            "SET l.x = :v",
            {":v": {"S": "x"}},
            "ValidationException | Key attributes must be scalars; list random access '[]' and map lookup '.' are not "
            "allowed: IndexKey: l",
        ),
    ],
)
def test_no_update_makes_an_item_that_could_not_stand_in_an_index(
    cluster: Cluster, expression: str, values: Any, answer: str
) -> None:
    created(cluster)
    before = {**item("one", 1, l="ok"), "a": {"L": []}}
    cluster.call("PutItem", {"TableName": "ind", "Item": before})
    request: dict[str, Any] = {"TableName": "ind", "Key": item("one", 1), "UpdateExpression": expression}
    if values:
        request["ExpressionAttributeValues"] = values
    assert cluster.call("UpdateItem", request) == answer
    assert cluster.call("GetItem", {"TableName": "ind", "Key": item("one", 1)})["Item"] == before
