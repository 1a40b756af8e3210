"""Conditions and updates, from request to answer: what is said first of a request that is wrong in several ways."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from merganser.wire.dynamodb.errors import ApiError, fault_of
from wire.dynamodb.fakes import Cluster, served

A = {"S": "a"}
ONE = {"N": "1"}
TWO = {"N": "2"}
INVALID = "ValidationException | "
WRITTEN = "ValidationException | 1 validation error detected: "
FAILED = "ConditionalCheckFailedException | The conditional request failed"
NOT_FOUND = "ResourceNotFoundException | Requested resource not found"
SCHEMA = "ValidationException | The provided key element does not match the schema"
KEY_CHANGES = (
    "ValidationException | One or more parameter values were invalid: Cannot update attribute {}. "
    "This attribute is part of the key"
)
NO_VALUE = "An expression attribute value used in expression is not defined; attribute value: :v"


def update(text: str | None = None, *, table: str = "str", values: Any = None, **more: Any) -> dict[str, Any]:
    request = {"TableName": table, "Key": {"p": A}, **more}
    if text is not None:
        request["UpdateExpression"] = text
    if values is not None:
        request["ExpressionAttributeValues"] = values
    return request


def stored(cluster: Cluster, table: str = "str") -> Any:
    return cluster.call("GetItem", {"TableName": table, "Key": {"p": A}}).get("Item")


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(
            {},
            "ValidationException | 2 validation errors detected: "
            "Value null at 'tableName' failed to satisfy constraint: Member must not be null; "
            "Value null at 'key' failed to satisfy constraint: Member must not be null",
            id="nothing",
        ),
        pytest.param(
            update("SET a = :v", ConditionExpression=1),
            "SerializationException | NUMBER_VALUE cannot be converted to String",
            id="types first",
        ),
        pytest.param(
            update("SET a = :v", AttributeUpdates={}, Expected={}),
            WRITTEN + "Can not use both expression and non-expression parameters in the same request: "
            "Non-expression parameters: {AttributeUpdates, Expected} Expression parameters: {UpdateExpression}",
            id="old and new",
        ),
        pytest.param(
            update(values={":v": ONE}),
            WRITTEN + "ExpressionAttributeValues can only be specified when using expressions: "
            "UpdateExpression and ConditionExpression are null",
            id="values without use",
        ),
        pytest.param(
            update("", table="nope"), WRITTEN + "Invalid UpdateExpression: The expression can not be empty;", id="empty"
        ),
        pytest.param(
            update("SET a = :v", ConditionExpression="a"),
            WRITTEN + f"Invalid UpdateExpression: {NO_VALUE}",
            id="update before condition",
        ),
        pytest.param(
            update("SET a = :w", values={":w": ONE}, ConditionExpression="a = :v", table="nope"),
            WRITTEN + f"Invalid ConditionExpression: {NO_VALUE}",
            id="condition before table",
        ),
        pytest.param(
            update("SET a = :v", values={":v": ONE, ":w": ONE}, ConditionExpression="a = :v", table="nope"),
            WRITTEN + "Value provided in ExpressionAttributeValues unused in expressions: keys: {:w}",
            id="not used",
        ),
        pytest.param(
            update("ADD a :v", values={":v": {"SS": []}}, table="nope"),
            WRITTEN + "One or more parameter values were invalid: An string set  may not be empty",
            id="a value, which is not named",
        ),
        pytest.param(
            update("SET a = :v SET b = :v", values={}, table="nope"),
            WRITTEN + "ExpressionAttributeValues must not be empty",
            id="no values before the update",
        ),
        pytest.param(update("REMOVE p", table="nope"), NOT_FOUND, id="table before key"),
        pytest.param(update("REMOVE s", table="tss"), SCHEMA, id="key before changes of the key"),
        pytest.param(update("REMOVE p"), KEY_CHANGES.format("p"), id="removes the key"),
        pytest.param(update("REMOVE q SET p = q"), KEY_CHANGES.format("p"), id="sets the key"),
        pytest.param(
            update("REMOVE q.r, s.t", table="tss") | {"Key": {"p": A, "s": A}},
            KEY_CHANGES.format("s"),
            id="in the sort key",
        ),
        pytest.param(
            update("SET a = :v", values={":v": ONE}, ReturnValues="X"),
            INVALID + "1 validation error detected: Value 'X' at 'returnValues' failed to satisfy constraint: "
            "Member must satisfy enum value set: [ALL_NEW, UPDATED_OLD, ALL_OLD, NONE, UPDATED_NEW]",
            id="no such ReturnValues",
        ),
        pytest.param(
            update("REMOVE q.r"),
            INVALID + "The document path provided in the update expression is invalid for update",
            id="no such path, and no item",
        ),
        pytest.param(
            update("SET a = q"),
            INVALID + "The provided expression refers to an attribute that does not exist in the item",
            id="no such attribute",
        ),
    ],
)
def test_wrong_update_is_refused(cluster: Cluster, request_: Any, answer: str) -> None:
    assert cluster.call("UpdateItem", request_) == answer
    assert not cluster.kept


def test_update_makes_changes_and_returns(cluster: Cluster) -> None:
    add = update("ADD n :v", values={":v": ONE})
    assert cluster.call("UpdateItem", add) == {}
    assert cluster.call("UpdateItem", {**add, "ReturnValues": "UPDATED_NEW"}) == {"Attributes": {"n": TWO}}
    assert cluster.call("UpdateItem", {**add, "ReturnValues": "ALL_OLD"}) == {"Attributes": {"p": A, "n": TWO}}
    assert cluster.call("UpdateItem", update("REMOVE n", ReturnValues="ALL_NEW")) == {"Attributes": {"p": A}}
    assert cluster.call("UpdateItem", update("REMOVE n", ReturnValues="UPDATED_OLD")) == {}
    assert stored(cluster) == {"p": A}


def test_update_without_an_expression_makes_the_item(cluster: Cluster) -> None:
    assert cluster.call("UpdateItem", update()) == {}
    assert stored(cluster) == {"p": A}


def test_placeholders_of_both_expressions_are_used_together(cluster: Cluster) -> None:
    request = update(
        "SET #a = :v",
        values={":v": ONE, ":w": TWO},
        ConditionExpression="NOT #b = :w",
        ExpressionAttributeNames={"#a": "a.b", "#b": "name"},
    )
    assert cluster.call("UpdateItem", request) == {}
    assert stored(cluster) == {"p": A, "a.b": ONE}


@pytest.mark.parametrize(
    ("operation", "content"),
    [
        ("PutItem", {"Item": {"p": A}}),
        ("DeleteItem", {"Key": {"p": A}}),
        ("UpdateItem", {"Key": {"p": A}, "UpdateExpression": "REMOVE q"}),
    ],
)
def test_condition_decides(cluster: Cluster, operation: str, content: dict[str, Any]) -> None:
    cluster.call("PutItem", {"TableName": "str", "Item": {"p": A, "q": ONE}})
    request = {
        "TableName": "str",
        **content,
        "ConditionExpression": "q = :v",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    assert cluster.call(operation, {**request, "ExpressionAttributeValues": {":v": TWO}}) == FAILED
    assert stored(cluster) == {"p": A, "q": ONE}
    assert cluster.call(operation, {**request, "ExpressionAttributeValues": {":v": {"N": "1.0"}}}) == {}
    assert stored(cluster) == (None if operation == "DeleteItem" else {"p": A})


@pytest.mark.parametrize("shown", [None, "NONE", "ALL_OLD"])
def test_item_that_fails_a_condition_comes_with_the_error_if_asked_for(cluster: Cluster, shown: str | None) -> None:
    cluster.call("PutItem", {"TableName": "str", "Item": {"p": A}})
    request = {"TableName": "str", "Item": {"p": A}, "ConditionExpression": "attribute_not_exists(p)"}
    if shown:
        request["ReturnValuesOnConditionCheckFailure"] = shown
    with pytest.raises(ApiError) as caught:
        cluster.run(served(cluster.dynamodb, "PutItem", orjson.dumps(request)))
    answer = {
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
    }
    item = {"Item": {"p": A}} if shown == "ALL_OLD" else {}
    assert orjson.loads(fault_of(caught.value).body()) == {**answer, **item}


def test_put_once(cluster: Cluster) -> None:
    request = {"TableName": "str", "Item": {"p": A}, "ConditionExpression": "attribute_not_exists(p)"}
    assert cluster.call("PutItem", request) == {}
    assert cluster.call("PutItem", request) == FAILED


@pytest.mark.parametrize(
    ("operation", "content", "what"),
    [
        ("PutItem", {"Item": {"p": A}, "ConditionExpression": "attribute_exists(p)"}, "ConditionExpression"),
        ("DeleteItem", {"Key": {"p": A}, "ConditionExpression": "attribute_exists(p)"}, "ConditionExpression"),
        ("UpdateItem", {"Key": {"p": A}, "UpdateExpression": "REMOVE q"}, "UpdateItem"),
    ],
)
def test_leaderless_table_evaluates_nothing(
    leaderless: Cluster, operation: str, content: dict[str, Any], what: str
) -> None:
    assert leaderless.call(operation, {"TableName": "str", **content}) == (
        f"ValidationException | {what} needs a table with leaders, and str is leaderless: "
        "create a table without the tag merganser:replication = leaderless"
    )
    assert not leaderless.kept
