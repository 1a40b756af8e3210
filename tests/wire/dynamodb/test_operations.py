"""Whole requests: what is answered, and what is said first of a request that is wrong in several ways."""

from __future__ import annotations

from typing import Any

import pytest

from merganser.model.consistency import Consistency
from merganser.model.errors import TransactionConflictError, UnavailableError, UnknownOutcomeError
from merganser.wire.dynamodb.errors import DETECTED
from wire.dynamodb.fakes import Cluster

INVALID = "ValidationException | One or more parameter values were invalid: "
SCHEMA = "ValidationException | The provided key element does not match the schema"
CONSTRAINT = "failed to satisfy constraint: "
NULL_NAME = f"Value null at 'tableName' {CONSTRAINT}Member must not be null"
NOT_FOUND = "ResourceNotFoundException | Requested resource not found"
EMPTY_KEY = (
    "ValidationException | One or more parameter values are not valid. "
    "The AttributeValue for a key attribute cannot contain an empty {} value. Key: {}"
)
EMPTY_VALUE = "Supplied AttributeValue is empty, must contain exactly one of the supported datatypes"
NO_EXPRESSION = "ExpressionAttributeNames can only be specified when using expressions"


def violation(*messages: str) -> str:
    plural = "s" if len(messages) > 1 else ""
    return f"ValidationException | {len(messages)} validation error{plural} detected: {'; '.join(messages)}"


def put(table: str, **attributes: Any) -> dict[str, Any]:
    return {"TableName": table, "Item": attributes}


def get(table: str, **key: Any) -> dict[str, Any]:
    return {"TableName": table, "Key": key}


A = {"S": "a"}
ONE = {"N": "1"}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(
            {}, violation(NULL_NAME, f"Value null at 'item' {CONSTRAINT}Member must not be null"), id="nothing"
        ),
        pytest.param(
            {"TableName": "ab", "Item": {}},
            violation(f"Value 'ab' at 'tableName' {CONSTRAINT}Member must have length greater than or equal to 3"),
            id="short name",
        ),
        pytest.param(
            {"TableName": "a b", "Item": {}},
            violation(
                f"Value 'a b' at 'tableName' {CONSTRAINT}Member must satisfy regular expression pattern: "
                "[a-zA-Z0-9_.-]+"
            ),
            id="strange name",
        ),
        pytest.param(put("nope", p=A), NOT_FOUND, id="no table"),
        pytest.param(put("nope", p={}), violation(EMPTY_VALUE), id="values before table"),
        pytest.param(put("str", q=A), INVALID + "Missing the key p in the item", id="no key"),
        pytest.param(
            put("str", p=ONE), INVALID + "Type mismatch for key p expected: S actual: N", id="key of another type"
        ),
        pytest.param(put("tss", p=A), INVALID + "Missing the key s in the item", id="no sort key"),
        pytest.param(put("str", p={"S": ""}), EMPTY_KEY.format("string", "p"), id="empty string key"),
        pytest.param(put("bin", p={"B": ""}), EMPTY_KEY.format("binary", "p"), id="empty binary key"),
        pytest.param(put("tss", p=A, s={"S": ""}), EMPTY_KEY.format("string", "s"), id="empty sort key"),
        pytest.param(
            put("str", p={"S": "x" * 2049}),
            INVALID + "Size of hashkey has exceeded the maximum size limit of2048 bytes",
            id="long partition key",
        ),
        pytest.param(
            put("tss", p=A, s={"S": "x" * 1025}),
            INVALID + "Aggregated size of all range keys has exceeded the size limit of 1024 bytes",
            id="long sort key",
        ),
        pytest.param(
            put("str", p=A, q={"S": "x" * (400 * 1024 - 2)}),
            "ValidationException | Item size has exceeded the maximum allowed size",
            id="too large",
        ),
        pytest.param(
            {**put("str", p=A), "ReturnValues": "X"},
            violation(
                f"Value 'X' at 'returnValues' {CONSTRAINT}Member must satisfy enum value set: "
                "[ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW]"
            ),
            id="no such ReturnValues",
        ),
        pytest.param(
            {**put("str", p=A), "ReturnValues": "ALL_NEW"},
            violation("ReturnValues can only be ALL_OLD or NONE"),
            id="ReturnValues of updates",
        ),
        pytest.param(
            {**put("str", p=A), "ExpressionAttributeNames": {}}, violation(NO_EXPRESSION), id="names without use"
        ),
        pytest.param(
            {
                **put("str", p={}),
                "ConditionExpression": "a = :b",
                "ExpressionAttributeValues": {"b": A},
                "ReturnValues": "ALL_NEW",
            },
            violation(EMPTY_VALUE),
            id="the item before ReturnValues and what expressions use",
        ),
        pytest.param(
            {**put("str", p=A), "ConditionExpression": "a", "ExpressionAttributeValues": {":a": {}, "b": A}},
            violation('ExpressionAttributeValues contains invalid key: Syntax error; key: "b"'),
            id="names of values before values",
        ),
        pytest.param(
            {**put("str", p=A), "ExpressionAttributeValues": {}},
            violation(
                "ExpressionAttributeValues can only be specified when using expressions: ConditionExpression is null"
            ),
            id="values without use",
        ),
        pytest.param(
            {**put("str", p=A), "Expected": {}, "ConditionExpression": "a"},
            violation(
                "Can not use both expression and non-expression parameters in the same request: "
                "Non-expression parameters: {Expected} Expression parameters: {ConditionExpression}"
            ),
            id="old and new",
        ),
        pytest.param(
            {"TableName": 1}, "SerializationException | NUMBER_VALUE cannot be converted to String", id="numeric name"
        ),
        pytest.param(
            put("str", p={}, q={"S": 1}),
            "SerializationException | NUMBER_VALUE cannot be converted to String",
            id="types before values",
        ),
        pytest.param(b"{", "SerializationException | ", id="no JSON"),
        pytest.param(b"[]", "SerializationException | ", id="an array"),
    ],
)
def test_wrong_put_is_refused(either: Cluster, request_: Any, answer: str) -> None:
    assert either.call("PutItem", request_) == answer
    assert not either.kept


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(get("str"), SCHEMA, id="no key"),
        pytest.param(get("str", q=A), SCHEMA, id="another attribute"),
        pytest.param(get("str", p=A, q=A), SCHEMA, id="too many"),
        pytest.param(get("tss", p=A), SCHEMA, id="too few"),
        pytest.param(get("str", p=ONE), SCHEMA, id="another type"),
        pytest.param(get("str", p={"S": ""}), EMPTY_KEY.format("string", "p"), id="empty"),
        pytest.param(get("nope", p=A), NOT_FOUND, id="no table"),
    ],
)
@pytest.mark.parametrize("operation", ["GetItem", "DeleteItem"])
def test_wrong_key_is_refused(cluster: Cluster, operation: str, request_: Any, answer: str) -> None:
    assert cluster.call(operation, request_) == answer


def test_values_are_looked_at_before_the_table_and_counted_where_something_is_written(cluster: Cluster) -> None:
    assert cluster.call("GetItem", get("nope", p={})) == f"ValidationException | {EMPTY_VALUE}"
    assert cluster.call("DeleteItem", get("nope", p={})) == violation(EMPTY_VALUE)


@pytest.mark.parametrize(
    ("extra", "answer"),
    [
        ({"AttributesToGet": ["a"]}, {}),
        ({"ProjectionExpression": "a"}, {}),
        (
            {"ProjectionExpression": "a, #b", "ExpressionAttributeNames": {"#a": "a", "#b": "b"}},
            "ValidationException | Value provided in ExpressionAttributeNames unused in expressions: keys: {#a}",
        ),
        ({"ExpressionAttributeNames": {"#a": "a"}}, f"ValidationException | {NO_EXPRESSION}"),
        ({"ProjectionExpression": "a", "ExpressionAttributeValues": {":a": A}}, {}),
        ({"ConsistentRead": "x"}, "SerializationException | Unexpected token received from parser"),
        ({"ReturnConsumedCapacity": "NONE", "Unknown": {"a": 1}}, {}),
    ],
)
def test_get_item_serves_refuses_or_ignores_each_parameter(cluster: Cluster, extra: Any, answer: Any) -> None:
    assert cluster.call("GetItem", {**get("str", p=A), **extra}) == answer


@pytest.mark.parametrize(("said", "is_consistent"), [("True", True), ("yes", True), ("0", False), ("false", False)])
def test_text_of_a_boolean_is_one(cluster: Cluster, said: str, is_consistent: bool) -> None:
    assert cluster.call("GetItem", {**get("str", p=A), "ConsistentRead": said}) == {}
    assert cluster.leader_based.are_consistent == [is_consistent]


@pytest.mark.parametrize(
    ("limit", "told"),
    [(0.9, "'0'"), (-0.1, "'-1'"), (1e20, None), (2.9, None), (-1e300, "'-2147483648'")],
)
def test_number_that_is_no_integer_is_read_as_the_nearest_below(
    cluster: Cluster, limit: float, told: str | None
) -> None:
    answer = cluster.call("Scan", {"TableName": "str", "Limit": limit})
    if told is None:
        assert answer == {"Items": [], "Count": 0, "ScannedCount": 0}
    else:
        assert answer.startswith(f"ValidationException | 1 validation error detected: Value {told} at 'limit' failed")


@pytest.mark.parametrize(
    ("table", "key"),
    [("str", {"p": A}), ("num", {"p": ONE}), ("bin", {"p": {"B": "AAE="}}), ("tsb", {"p": A, "s": {"B": "/w=="}})],
)
def test_item_is_put_got_and_deleted(either: Cluster, table: str, key: Any) -> None:
    item = {**key, "q": {"M": {"é": {"L": [{"N": "1"}]}}}}
    assert either.call("PutItem", put(table, **item)) == {}
    assert either.call("GetItem", get(table, **key)) == {"Item": item}
    assert either.call("DeleteItem", get(table, **key)) == {}
    assert either.call("GetItem", get(table, **key)) == {}


def test_one_number_has_one_key(either: Cluster) -> None:
    either.call("PutItem", put("num", p={"N": "1.0"}))
    assert either.call("GetItem", get("num", p={"N": "1e0"})) == {"Item": {"p": {"N": "1"}}}


def test_put_replaces_the_whole_item(either: Cluster) -> None:
    either.call("PutItem", put("str", p=A, q=A))
    either.call("PutItem", put("str", p=A, r=A))
    assert either.call("GetItem", get("str", p=A)) == {"Item": {"p": A, "r": A}}


@pytest.mark.parametrize("start", [b'{"L":[', b'{"X":1,"L":['])
def test_item_of_500_levels_is_too_deep_and_no_crash(cluster: Cluster, start: bytes) -> None:
    item = b'{"TableName":"str","Item":{"p":{"S":"a"},"q":' + start * 500 + b"]}" * 500 + b"}}"
    answer = cluster.call("PutItem", item)
    assert answer.startswith(f"ValidationException | {DETECTED}Nesting Levels have exceeded supported limits")


def test_keys_of_the_largest_size_are_taken(cluster: Cluster) -> None:
    assert cluster.call("PutItem", put("str", p={"S": "x" * 2048})) == {}
    assert cluster.call("PutItem", put("tss", p={"S": "x" * 2048}, s={"S": "x" * 1024})) == {}


def test_largest_item_is_400_kb(cluster: Cluster) -> None:
    assert cluster.call("PutItem", put("str", p=A, q={"S": "x" * (400 * 1024 - 3)})) == {}


def test_writes_are_quorum_and_reads_as_consistent_as_asked(leaderless: Cluster) -> None:
    leaderless.call("PutItem", put("str", p=A))
    leaderless.call("GetItem", get("str", p=A))
    leaderless.call("GetItem", {**get("str", p=A), "ConsistentRead": True})
    leaderless.call("DeleteItem", get("str", p=A), Consistency.ALL)
    leaderless.call("GetItem", get("str", p=A), Consistency.TWO)
    assert leaderless.coordinator.levels == [
        Consistency.QUORUM,
        Consistency.ONE,
        Consistency.QUORUM,
        Consistency.ALL,
        Consistency.TWO,
    ]


def test_reads_of_a_table_with_leaders_are_as_consistent_as_asked(cluster: Cluster) -> None:
    cluster.call("GetItem", get("str", p=A))
    cluster.call("GetItem", {**get("str", p=A), "ConsistentRead": True})
    cluster.call("Scan", {"TableName": "str", "ConsistentRead": True})
    assert cluster.leader_based.are_consistent == [False, True, True]


def test_put_and_delete_return_what_was_there(cluster: Cluster) -> None:
    old = {"ReturnValues": "ALL_OLD"}
    assert cluster.call("PutItem", {**put("str", p=A, q=ONE), **old}) == {}
    assert cluster.call("PutItem", {**put("str", p=A, q=A), **old}) == {"Attributes": {"p": A, "q": ONE}}
    assert cluster.call("DeleteItem", {**get("str", p=A), **old}) == {"Attributes": {"p": A, "q": A}}
    assert cluster.call("DeleteItem", {**get("str", p=A), **old}) == {}


def test_a_leaderless_table_cannot_return_what_was_there(leaderless: Cluster) -> None:
    answer = leaderless.call("PutItem", {**put("str", p=A), "ReturnValues": "ALL_OLD"})
    assert answer == (
        "ValidationException | ReturnValues ALL_OLD needs a table with leaders, and str is leaderless: "
        "create a table without the tag merganser:replication = leaderless"
    )


def test_an_item_that_a_transaction_holds_is_a_conflict(cluster: Cluster) -> None:
    cluster.fails(lambda key: TransactionConflictError("by 00ff"))
    assert cluster.call("PutItem", put("str", p=A)) == (
        "TransactionConflictException | Transaction is ongoing for the item"
    )


def test_unreachable_replicas_are_a_503_and_an_unknown_outcome_says_so(either: Cluster) -> None:
    either.fails(lambda key: UnavailableError("1 of 3 replicas is up"))
    assert either.call("PutItem", put("str", p=A)) == (
        "ServiceUnavailable | The service is unavailable: 1 of 3 replicas is up"
    )
    either.fails(lambda key: UnknownOutcomeError("1 of 2 acks"))
    assert either.call("PutItem", put("str", p=A)) == (
        "InternalServerError | The outcome of the request is unknown: "
        "it may or may not have been applied, now or later: 1 of 2 acks"
    )


@pytest.mark.parametrize("operation", ["Nope", "listTables", ""])
def test_operation_that_there_is_not_is_unknown(cluster: Cluster, operation: str) -> None:
    assert cluster.call(operation, {}) == "UnknownOperationException | "
