from __future__ import annotations

from typing import Any

import pytest

from merganser.model.errors import TransactionConflictError, UnavailableError, UnknownOutcomeError
from wire.dynamodb.fakes import Cluster

DUPLICATES = "ValidationException | Provided list of item keys contains duplicates"
MANY = "ValidationException | Too many items requested for the {} call"
SCHEMA = "ValidationException | The provided key element does not match the schema"
NOT_FOUND = "ResourceNotFoundException | Requested resource not found"
EMPTY_VALUE = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"


def put(key: str, **attributes: Any) -> dict[str, Any]:
    return {"PutRequest": {"Item": {"p": {"S": key}, **attributes}}}


def delete(key: str) -> dict[str, Any]:
    return {"DeleteRequest": {"Key": {"p": {"S": key}}}}


def keys(*names: str) -> dict[str, Any]:
    return {"Keys": [{"p": {"S": name}} for name in names]}


def violation(message: str) -> str:
    return f"ValidationException | 1 validation error detected: {message}"


@pytest.mark.parametrize(
    ("items", "answer"),
    [
        pytest.param(
            {},
            violation(
                "Value '{}' at 'requestItems' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1"
            ),
            id="no tables",
        ),
        pytest.param(
            {"str": []},
            violation(
                "Value '{str=[]}' at 'requestItems' failed to satisfy constraint: Map value must satisfy constraint: "
                "[Member must have length less than or equal to 25, Member must have length greater than or equal to 1]"
            ),
            id="no requests",
        ),
        pytest.param(
            {"str": [{}]},
            "ValidationException | Supplied AttributeValue has more than one datatypes set, must contain exactly one "
            "of the supported datatypes",
            id="neither",
        ),
        pytest.param(
            {"str": [put(str(n)) for n in range(13)], "tss": [put(str(n)) for n in range(13)]},
            MANY.format("BatchWriteItem"),
            id="26 over two tables",
        ),
        pytest.param({"str": [put("a"), delete("a")]}, DUPLICATES, id="one key twice"),
        pytest.param({"nope": [put("a")]}, NOT_FOUND, id="no table"),
        pytest.param({"nope": [put("a", x={})]}, f"ValidationException | {EMPTY_VALUE}", id="values before table"),
        pytest.param({"str": [{"DeleteRequest": {"Key": {"q": {"S": "a"}}}}]}, SCHEMA, id="another key"),
        pytest.param({"str": [{"PutRequest": {"Item": {"q": {"S": "a"}}}}]}, SCHEMA, id="item without its key"),
        pytest.param({"str": [{"PutRequest": {"Item": {"p": {"N": "1"}}}}]}, SCHEMA, id="item whose key is a number"),
        pytest.param(
            {"str": [put("a"), {"PutRequest": {"Item": {"p": {"N": "1"}}}}]},
            SCHEMA,
            id="one good, one bad",
        ),
        pytest.param(
            {"str": [put("a", x={"S": "x" * 409_600})]},
            "ValidationException | Item size has exceeded the maximum allowed size",
            id="too large",
        ),
        pytest.param({"str": "x"}, "SerializationException | class sun.reflect.generics.reflectiveObjects", id="type"),
    ],
)
def test_wrong_batch_writes_nothing(cluster: Cluster, items: Any, answer: str) -> None:
    assert cluster.call("BatchWriteItem", {"RequestItems": items}).startswith(answer)
    assert not cluster.kept


def test_batch_writes_and_gets_over_tables(cluster: Cluster) -> None:
    cluster.call("PutItem", {"TableName": "str", "Item": {"p": {"S": "old"}}})
    items = {
        "str": [put("a", q={"N": "1.0"}), delete("old")],
        "num": [{"PutRequest": {"Item": {"p": {"N": "7"}}}}],
    }
    assert cluster.call("BatchWriteItem", {"RequestItems": items}) == {"UnprocessedItems": {}}
    asked = {"str": keys("a", "old"), "num": {"Keys": [{"p": {"N": "7.0"}}], "ConsistentRead": True}}
    assert cluster.call("BatchGetItem", {"RequestItems": asked}) == {
        "Responses": {"str": [{"p": {"S": "a"}, "q": {"N": "1"}}], "num": [{"p": {"N": "7"}}]},
        "UnprocessedKeys": {},
    }


@pytest.mark.parametrize(
    "error", [UnavailableError("down"), UnknownOutcomeError("silent"), TransactionConflictError("held")]
)
def test_item_that_failed_goes_back_unprocessed(either: Cluster, error: Exception) -> None:
    either.fails(lambda key: error if b"bad" in key else None)
    written = either.call("BatchWriteItem", {"RequestItems": {"str": [put("bad"), put("good")]}})
    assert written == {"UnprocessedItems": {"str": [put("bad")]}}
    got = either.call("BatchGetItem", {"RequestItems": {"str": {**keys("bad", "good"), "ConsistentRead": True}}})
    assert got == {
        "Responses": {"str": [{"p": {"S": "good"}}]},
        "UnprocessedKeys": {"str": {"ConsistentRead": True, **keys("bad")}},
    }


def test_batch_of_which_nothing_succeeded_is_the_error(either: Cluster) -> None:
    either.fails(lambda key: UnavailableError("down"))
    for operation, items in (("BatchWriteItem", [put("a"), put("b")]), ("BatchGetItem", keys("a", "b"))):
        answer = either.call(operation, {"RequestItems": {"str": items}})
        assert answer == "ServiceUnavailable | The service is unavailable: down"


def test_a_batch_of_items_that_transactions_hold_goes_back_whole(cluster: Cluster) -> None:
    cluster.fails(lambda key: TransactionConflictError("held"))
    written = cluster.call("BatchWriteItem", {"RequestItems": {"str": [put("a"), put("b")]}})
    assert written == {"UnprocessedItems": {"str": [put("a"), put("b")]}}


def test_what_does_not_fit_into_16_mb_goes_back_unprocessed(cluster: Cluster) -> None:
    names = [f"{number:02}" for number in range(42)]
    for name in names:
        item = {"p": {"S": name}, "x": {"S": "x" * 400_000}}
        cluster.call("PutItem", {"TableName": "str", "Item": item})
    answer = cluster.call("BatchGetItem", {"RequestItems": {"str": keys(*names)}})
    assert [item["p"]["S"] for item in answer["Responses"]["str"]] == names[:41]
    assert answer["UnprocessedKeys"] == {"str": keys(*names[41:])}


def test_no_more_is_read_than_there_is_room_for(cluster: Cluster) -> None:
    names = [f"{number:03}" for number in range(100)]
    for name in names:
        cluster.call("PutItem", {"TableName": "str", "Item": {"p": {"S": name}, "x": {"S": "x" * 400_000}}})
    answer = cluster.call("BatchGetItem", {"RequestItems": {"str": keys(*names)}})
    assert len(answer["Responses"]["str"]) == 41
    assert answer["UnprocessedKeys"] == {"str": keys(*names[41:])}
    assert len(cluster.leader_based.are_consistent) < 42 + 25


def test_others_are_served_while_a_large_batch_is_looked_into(cluster: Cluster) -> None:
    items = [put(f"{number}", x={"S": "x" * 300_000}) for number in range(25)]
    refused, turns = cluster.fault_beside_others("BatchWriteItem", {"RequestItems": {"nope": items}})
    assert "not found" in refused.message  # which is seen after the items, before the writes
    assert turns >= 25


@pytest.mark.parametrize(
    ("items", "answer"),
    [
        pytest.param(
            {"str": {}},
            violation(
                "Value null at 'requestItems.str.member.keys' failed to satisfy constraint: Member must not be null"
            ),
            id="no keys",
        ),
        pytest.param(
            {"str": {"Keys": []}},
            violation(
                "Value '[]' at 'requestItems.str.member.keys' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1"
            ),
            id="empty keys",
        ),
        pytest.param({"str": keys("a", "a")}, DUPLICATES, id="one key twice"),
        pytest.param({"nope": keys("a", "a")}, DUPLICATES, id="twice before table"),
        pytest.param(
            {"num": {"Keys": [{"p": {"N": "1"}}, {"p": {"N": "1.0"}}]}}, DUPLICATES, id="one number written twice"
        ),
        pytest.param(
            {"str": keys(*map(str, range(60))), "tss": keys(*map(str, range(60)))},
            MANY.format("BatchGetItem"),
            id="120 over two tables",
        ),
        pytest.param({"nope": keys("a")}, NOT_FOUND, id="no table"),
        pytest.param({"str": {"Keys": [{}]}}, SCHEMA, id="empty key"),
        pytest.param(
            {"str": {**keys("a"), "ProjectionExpression": "a,"}},
            'ValidationException | Invalid ProjectionExpression: Syntax error; token: "<EOF>", near: ","',
            id="projection",
        ),
    ],
)
def test_wrong_batch_get_is_refused(cluster: Cluster, items: Any, answer: str) -> None:
    assert cluster.call("BatchGetItem", {"RequestItems": items}) == answer
