"""ReturnConsumedCapacity and ReturnItemCollectionMetrics: what each operation took."""

from __future__ import annotations

from typing import Any

import pytest

from merganser.wire.dynamodb.capacity import (
    Consumption,
    read_units,
    transact_read_units,
    transact_write_units,
    write_units,
)
from wire.dynamodb.fakes import Cluster

KB = 1024
ONE = {"N": "1"}


def item(p: str, size: int) -> dict[str, Any]:
    """An item of so many bytes: the names p and v, and their values."""
    return {"p": {"S": p}, "v": {"S": "x" * (size - 2 - len(p))}}


def put(cluster: Cluster, p: str, size: int, **extra: Any) -> Any:
    return cluster.call("PutItem", {"TableName": "str", "Item": item(p, size), **extra})


def key(p: str) -> dict[str, Any]:
    return {"TableName": "str", "Key": {"p": {"S": p}}}


def total(units: float) -> dict[str, Any]:
    return {"TableName": "str", "CapacityUnits": units}


TOTAL = {"ReturnConsumedCapacity": "TOTAL"}
INDEXES = {"ReturnConsumedCapacity": "INDEXES"}


@pytest.mark.parametrize(
    ("size", "consistent", "eventual"),
    [(0, 1, 0.5), (1, 1, 0.5), (4 * KB, 1, 0.5), (4 * KB + 1, 2, 1), (9 * KB, 3, 1.5)],
)
def test_a_read_takes_a_unit_for_4_kb_and_half_when_it_is_eventual(
    size: int, consistent: float, eventual: float
) -> None:
    assert read_units(size, is_consistent=True) == consistent
    assert read_units(size, is_consistent=False) == eventual
    assert transact_read_units(size) == 2 * consistent


@pytest.mark.parametrize(("before", "after", "units"), [(0, 0, 1), (KB, 0, 1), (KB + 1, 1, 2), (1, 3 * KB, 3)])
def test_a_write_takes_a_unit_for_1_kb_of_the_larger_of_before_and_after(before: int, after: int, units: float) -> None:
    assert write_units(before, after) == units
    assert transact_write_units(before, after) == 2 * units


def test_what_indexes_took_counts_in_the_total_and_is_told_by_index() -> None:
    consumption = Consumption("music", 3.0)
    consumption.local_indexes["l"] = 2.0
    consumption.global_indexes["g"] = 1.0
    assert consumption.described("TOTAL") == {"TableName": "music", "CapacityUnits": 6.0}
    assert consumption.described("INDEXES") == {
        "TableName": "music",
        "CapacityUnits": 6.0,
        "Table": {"CapacityUnits": 3.0},
        "LocalSecondaryIndexes": {"l": {"CapacityUnits": 2.0}},
        "GlobalSecondaryIndexes": {"g": {"CapacityUnits": 1.0}},
    }


def test_nothing_is_told_that_was_not_asked_for(either: Cluster) -> None:
    assert put(either, "a", KB) == {}
    assert put(either, "a", KB, ReturnConsumedCapacity="NONE") == {}
    assert "ConsumedCapacity" not in either.call("Scan", {"TableName": "str"})
    assert "ConsumedCapacity" not in either.call("BatchGetItem", {"RequestItems": {"str": {"Keys": [key("a")["Key"]]}}})


def test_a_put_takes_what_the_larger_of_the_two_items_takes(cluster: Cluster) -> None:
    assert put(cluster, "a", KB, **TOTAL) == {"ConsumedCapacity": total(1)}
    assert put(cluster, "a", 3 * KB + 1, **TOTAL) == {"ConsumedCapacity": total(4)}
    assert put(cluster, "a", 20, **TOTAL) == {"ConsumedCapacity": total(4)}
    assert put(cluster, "a", 20, **INDEXES) == {"ConsumedCapacity": {**total(1), "Table": {"CapacityUnits": 1.0}}}


def test_a_delete_takes_what_the_deleted_item_took_and_one_where_there_is_none(cluster: Cluster) -> None:
    put(cluster, "a", 2 * KB)
    condition = {"ConditionExpression": "attribute_not_exists(p)"}
    assert cluster.call("DeleteItem", {**key("a"), **condition, **TOTAL}).startswith("ConditionalCheckFailed")
    deleted = cluster.call("DeleteItem", {**key("a"), "ReturnValues": "ALL_OLD", **TOTAL})
    assert deleted == {"Attributes": item("a", 2 * KB), "ConsumedCapacity": total(2)}
    assert cluster.call("DeleteItem", {**key("a"), **condition, **TOTAL}) == {"ConsumedCapacity": total(1)}


def test_an_update_takes_what_the_larger_of_before_and_after_takes(cluster: Cluster) -> None:
    put(cluster, "a", 2 * KB)
    remove = {**key("a"), "UpdateExpression": "REMOVE v", "ReturnValues": "ALL_NEW", **TOTAL}
    assert cluster.call("UpdateItem", remove) == {"Attributes": {"p": {"S": "a"}}, "ConsumedCapacity": total(2)}
    assert cluster.call("UpdateItem", {**remove, "ReturnValues": "NONE"}) == {"ConsumedCapacity": total(1)}
    grow = {"UpdateExpression": "SET v = :v", "ExpressionAttributeValues": {":v": {"S": "x" * 3 * KB}}}
    assert cluster.call("UpdateItem", {**key("a"), **grow, **TOTAL}) == {"ConsumedCapacity": total(4)}


def test_writes_of_leaderless_tables_take_what_they_write(leaderless: Cluster) -> None:
    assert put(leaderless, "a", 3 * KB, **TOTAL) == {"ConsumedCapacity": total(3)}
    assert put(leaderless, "a", 20, **TOTAL) == {"ConsumedCapacity": total(1)}
    assert leaderless.call("DeleteItem", {**key("a"), **TOTAL}) == {"ConsumedCapacity": total(1)}


def test_a_get_takes_the_whole_item_whatever_is_shown_of_it(either: Cluster) -> None:
    put(either, "a", 8 * KB + 1)
    get = {**key("a"), "ProjectionExpression": "p", **TOTAL}
    assert either.call("GetItem", get) == {"Item": {"p": {"S": "a"}}, "ConsumedCapacity": total(1.5)}
    assert either.call("GetItem", {**get, "ConsistentRead": True})["ConsumedCapacity"] == total(3)
    assert either.call("GetItem", {**key("b"), **TOTAL}) == {"ConsumedCapacity": total(0.5)}
    assert either.call("GetItem", {**key("b"), **INDEXES, "ConsistentRead": True}) == {
        "ConsumedCapacity": {**total(1), "Table": {"CapacityUnits": 1.0}}
    }


def test_scans_and_queries_take_the_sum_of_what_they_go_through(either: Cluster) -> None:
    def listed(operation: str, **extra: Any) -> Any:
        return either.call(operation, {"TableName": "tsn", **TOTAL, **extra})["ConsumedCapacity"]["CapacityUnits"]

    query: dict[str, Any] = {
        "KeyConditionExpression": "p = :p",
        "ExpressionAttributeValues": {":p": {"S": "a"}},
    }
    assert listed("Scan") == 0.5
    assert listed("Query", **query) == 0.5
    for number in range(1, 5):  # of 3 KB each
        content = {"p": {"S": "a"}, "s": {"N": str(number)}, "v": {"S": "x" * (3 * KB - 6)}}
        either.call("PutItem", {"TableName": "tsn", "Item": content})
    assert listed("Scan") == 1.5
    assert listed("Query", **query, ConsistentRead=True) == 3
    assert listed("Query", **query, FilterExpression="s2 = :p", Select="COUNT") == 1.5
    assert listed("Query", **query, Limit=3, ProjectionExpression="p", ConsistentRead=True) == 3
    assert listed("Scan", Limit=1) == 0.5
    told = either.call("Scan", {"TableName": "tsn", **INDEXES})["ConsumedCapacity"]
    assert told == {"TableName": "tsn", "CapacityUnits": 1.5, "Table": {"CapacityUnits": 1.5}}


def test_batches_tell_by_table_and_round_up_each_item(cluster: Cluster) -> None:
    put(cluster, "a", 2 * KB)
    requests = {
        "str": [{"PutRequest": {"Item": item("a", 20)}}, {"DeleteRequest": {"Key": {"p": {"S": "none"}}}}],
        "num": [{"PutRequest": {"Item": {"p": ONE, "v": {"S": "x" * 4 * KB}}}}],
    }
    assert cluster.call("BatchWriteItem", {"RequestItems": requests, **INDEXES}) == {
        "UnprocessedItems": {},
        "ConsumedCapacity": [
            {**total(3), "Table": {"CapacityUnits": 3.0}},
            {"TableName": "num", "CapacityUnits": 5.0, "Table": {"CapacityUnits": 5.0}},
        ],
    }
    keys = {
        "num": {"Keys": [{"p": ONE}, {"p": {"N": "2"}}], "ConsistentRead": True},
        "str": {"Keys": [{"p": {"S": "a"}}, {"p": {"S": "b"}}], "ProjectionExpression": "nothing"},
    }
    assert cluster.call("BatchGetItem", {"RequestItems": keys, **TOTAL})["ConsumedCapacity"] == [
        {"TableName": "num", "CapacityUnits": 3.0},
        total(1),
    ]


def test_batches_of_leaderless_tables_take_what_they_write(leaderless: Cluster) -> None:
    requests = {"str": [{"PutRequest": {"Item": item("a", 2 * KB)}}]}
    answer = leaderless.call("BatchWriteItem", {"RequestItems": requests, **TOTAL})
    assert answer["ConsumedCapacity"] == [total(2)]


def test_transactions_take_twice_and_tell_reads_from_writes(cluster: Cluster) -> None:
    put(cluster, "check", KB + 1)
    put(cluster, "gone", 3 * KB)
    write = {
        "TransactItems": [
            {"Put": {"TableName": "num", "Item": {"p": ONE}}},
            {"Put": {"TableName": "str", "Item": item("a", 2 * KB)}},
            {"Delete": key("gone")},
            {"ConditionCheck": {**key("check"), "ConditionExpression": "attribute_exists(p)"}},
            {
                "Update": {
                    **key("new"),
                    "UpdateExpression": "SET v = :v",
                    "ExpressionAttributeValues": {":v": ONE},
                }
            },
        ],
        "ClientRequestToken": "once",
    }
    assert cluster.call("TransactWriteItems", {**write, **TOTAL}) == {
        "ConsumedCapacity": [
            {"TableName": "num", "CapacityUnits": 2.0, "WriteCapacityUnits": 2.0},
            {**total(16), "WriteCapacityUnits": 16.0},
        ]
    }
    assert cluster.call("TransactWriteItems", {**write, **INDEXES}) == {
        "ConsumedCapacity": [
            {
                "TableName": "num",
                "CapacityUnits": 2.0,
                "ReadCapacityUnits": 2.0,
                "Table": {"CapacityUnits": 2.0, "ReadCapacityUnits": 2.0},
            },
            {**total(8), "ReadCapacityUnits": 8.0, "Table": {"CapacityUnits": 8.0, "ReadCapacityUnits": 8.0}},
        ]
    }, "done before: it only reads"
    assert cluster.call("TransactWriteItems", write) == {}
    put(cluster, "a", 4 * KB + 1)
    gets = [{"Get": {**key("a"), "ProjectionExpression": "p"}}, {"Get": key("none")}]
    assert cluster.call("TransactGetItems", {"TransactItems": gets, **TOTAL}) == {
        "Responses": [{"Item": {"p": {"S": "a"}}}, {}],
        "ConsumedCapacity": [{**total(6), "ReadCapacityUnits": 6.0}],
    }


def test_tables_without_local_indexes_have_no_collections_to_tell_of(cluster: Cluster) -> None:
    metrics = {"ReturnItemCollectionMetrics": "SIZE"}
    assert put(cluster, "a", KB, **metrics) == {}
    assert cluster.call("DeleteItem", {**key("a"), **metrics}) == {}
    requests = {"str": [{"PutRequest": {"Item": item("a", KB)}}]}
    assert cluster.call("BatchWriteItem", {"RequestItems": requests, **metrics}) == {"UnprocessedItems": {}}
