"""What writes take of secondary indexes, and how large item collections are said to be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from merganser.model.errors import UnavailableError
from merganser.wire.dynamodb import collections
from wire.dynamodb.fakes import Cluster
from wire.dynamodb.test_index_tables import defined, global_, local, table

KB = 1024
KEY = {"p": {"S": "a"}, "s": {"N": "1"}}
SOME = {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["a"]}
KEYS = {"ProjectionType": "KEYS_ONLY"}
INDEXES = {"ReturnConsumedCapacity": "INDEXES"}
SIZE = {"ReturnItemCollectionMetrics": "SIZE"}


@pytest.fixture
def indexed() -> Iterator[Cluster]:
    """A cluster with a table: local indexes all and keys by l, and a global one, some, by g with the attribute a."""
    cluster = Cluster()
    answer = cluster.call(
        "CreateTable",
        table(
            AttributeDefinitions=defined(p="S", s="N", l="S", g="S"),
            LocalSecondaryIndexes=[local("all"), local("keys", Projection=KEYS)],
            GlobalSecondaryIndexes=[global_("some", "g", Projection=SOME)],
        ),
    )
    assert "TableDescription" in answer, answer
    yield cluster
    cluster.close()


def text(size: int) -> dict[str, str]:
    return {"S": "x" * size}


def taken(answer: Any) -> tuple[float, float, dict[str, float]]:
    """Units in all, of the table, and by index."""
    told = answer["ConsumedCapacity"]
    by_index = {**told.get("LocalSecondaryIndexes", {}), **told.get("GlobalSecondaryIndexes", {})}
    return (
        told["CapacityUnits"],
        told["Table"]["CapacityUnits"],
        {name: units["CapacityUnits"] for name, units in by_index.items()},
    )


def put(cluster: Cluster, **attributes: Any) -> Any:
    return cluster.call("PutItem", {"TableName": "ind", "Item": {**KEY, **attributes}, **INDEXES})


def update(cluster: Cluster, text: str, **values: Any) -> Any:
    request = {"TableName": "ind", "Key": KEY, "UpdateExpression": text, **INDEXES}
    if values:
        request["ExpressionAttributeValues"] = {f":{name}": value for name, value in values.items()}
    return cluster.call("UpdateItem", request)


def test_an_item_takes_writes_of_the_indexes_it_enters_and_leaves(indexed: Cluster) -> None:
    assert taken(put(indexed, v=text(2 * KB))) == (3, 3, {})
    assert taken(put(indexed, v=text(2 * KB), l=text(1))) == (3 + 3 + 1, 3, {"all": 3, "keys": 1})
    assert taken(update(indexed, "SET g = :g, a = :a", g=text(1), a=text(KB))) == (4 + 4 + 2, 4, {"all": 4, "some": 2})
    deleted = indexed.call("DeleteItem", {"TableName": "ind", "Key": KEY, **INDEXES})
    assert taken(deleted) == (4 + 4 + 1 + 2, 4, {"all": 4, "keys": 1, "some": 2})


def test_another_key_in_an_index_takes_two_writes(indexed: Cluster) -> None:
    put(indexed, l=text(1), g=text(1), v=text(KB))
    assert taken(update(indexed, "SET l = :l", l=text(2)))[2] == {"all": 4, "keys": 2}
    assert taken(update(indexed, "SET g = :g", g=text(2)))[2] == {"all": 2, "some": 2}


def test_what_an_index_does_not_show_takes_nothing_of_it(indexed: Cluster) -> None:
    put(indexed, l=text(1), g=text(1), a=text(3 * KB))
    assert taken(update(indexed, "SET b = :b", b=text(1)))[2] == {"all": 4}
    assert taken(update(indexed, "SET a = :a", a=text(1)))[2] == {"all": 4, "some": 4}
    assert taken(update(indexed, "SET a = :a", a=text(1)))[2] == {}


def test_transactions_count_indexes_once_and_checks_do_not(indexed: Cluster) -> None:
    other = {"p": {"S": "b"}, "s": {"N": "1"}}
    put(indexed, l=text(1))
    answer = indexed.call(
        "TransactWriteItems",
        {
            "TransactItems": [
                {"Put": {"TableName": "ind", "Item": {**other, "l": text(1)}}},
                {"ConditionCheck": {"TableName": "ind", "Key": KEY, "ConditionExpression": "attribute_exists(p)"}},
            ],
            **INDEXES,
        },
    )
    (told,) = answer["ConsumedCapacity"]
    assert taken({"ConsumedCapacity": told}) == (6, 4, {"all": 1, "keys": 1})


def test_batches_add_up_indexes(indexed: Cluster) -> None:
    puts = [{"PutRequest": {"Item": {"p": {"S": "a"}, "s": {"N": str(number)}, "l": text(KB)}}} for number in range(3)]
    answer = indexed.call("BatchWriteItem", {"RequestItems": {"ind": puts}, **INDEXES, **SIZE})
    (told,) = answer["ConsumedCapacity"]
    assert taken({"ConsumedCapacity": told}) == (18, 6, {"all": 6, "keys": 6})
    assert answer["ItemCollectionMetrics"] == {
        "ind": [{"ItemCollectionKey": {"p": {"S": "a"}}, "SizeEstimateRangeGB": [0.0, 1.0]}]
    }


def test_writes_tell_of_the_item_collection_if_the_request_wants_it(indexed: Cluster) -> None:
    metrics = {"ItemCollectionKey": {"p": {"S": "a"}}, "SizeEstimateRangeGB": [0.0, 1.0]}
    plain = {"TableName": "ind", "Item": KEY}
    assert indexed.call("PutItem", {**plain, "ReturnItemCollectionMetrics": "NONE"}) == {}
    assert indexed.call("PutItem", {**plain, **SIZE}) == {"ItemCollectionMetrics": metrics}
    old = indexed.call("PutItem", {**plain, **SIZE, **INDEXES, "ReturnValues": "ALL_OLD"})
    assert (old["Attributes"], old["ItemCollectionMetrics"]) == (KEY, metrics)
    changed = {"TableName": "ind", "Key": KEY, "UpdateExpression": "SET a = :a"}
    values = {"ExpressionAttributeValues": {":a": text(1)}, "ReturnValues": "UPDATED_NEW"}
    assert indexed.call("UpdateItem", {**changed, **values, **SIZE}) == {
        "Attributes": {"a": text(1)},
        "ItemCollectionMetrics": metrics,
    }
    transact = {"TransactItems": [{"Delete": {"TableName": "ind", "Key": KEY}}], **SIZE}
    assert indexed.call("TransactWriteItems", transact) == {"ItemCollectionMetrics": {"ind": [metrics]}}
    assert indexed.call("DeleteItem", {"TableName": "ind", "Key": KEY, **SIZE}) == {"ItemCollectionMetrics": metrics}


def estimate(cluster: Cluster, item: dict[str, Any]) -> Any:
    return cluster.call("PutItem", {"TableName": "ind", "Item": item, **SIZE})["ItemCollectionMetrics"].get(
        "SizeEstimateRangeGB"
    )


def test_a_collection_is_no_larger_than_what_is_around_it_and_is_not_read_for_that(indexed: Cluster) -> None:
    for number in range(11):
        item = {"p": {"S": "a"}, "s": {"N": str(number)}, "l": text(1), "v": text(390 * KB)}
        assert estimate(indexed, item) == [0.0, 1.0]
    assert indexed.ranges_read == 0


def test_a_large_collection_is_at_most_what_is_around_it(indexed: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "GB", 1000 * KB)
    monkeypatch.setattr(collections, "BYTES_MAX", 1000 * KB)
    told = [
        estimate(indexed, {"p": {"S": "a"}, "s": {"N": str(number)}, "l": text(1), "v": text(390 * KB)})
        for number in range(5)
    ]
    assert told == [[0.0, most] for most in (1.0, 2.0, 3.0, 4.0, 4.0)], "with the index it counts twice"
    assert estimate(indexed, {"p": {"S": "b"}, "s": {"N": "1"}, "l": text(1)}) == [0.0, 1.0]
    indexed.counting.knows = False
    assert estimate(indexed, {"p": {"S": "a"}, "s": {"N": "1"}, "l": text(1)}) == [0.0, 10.0]
    assert estimate(indexed, {"p": {"S": "b"}, "s": {"N": "1"}, "l": text(1)}) == [0.0, 1.0]


def test_a_write_is_done_even_if_its_item_collection_cannot_be_read(indexed: Cluster) -> None:
    reads = indexed.leader_based.read_range
    indexed.counting.knows = False

    async def unavailable(*_: Any, **__: Any) -> Any:
        raise UnavailableError("down")

    indexed.leader_based.read_range = unavailable  # type: ignore[method-assign]
    answer = indexed.call("PutItem", {"TableName": "ind", "Item": KEY, **SIZE})
    assert answer == {"ItemCollectionMetrics": {"ItemCollectionKey": {"p": {"S": "a"}}}}
    indexed.leader_based.read_range = reads  # type: ignore[method-assign]
    assert indexed.call("GetItem", {"TableName": "ind", "Key": KEY}) == {"Item": KEY}
