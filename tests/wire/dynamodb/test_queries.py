"""Key conditions against a table's schema; the language itself is tested in tests/query."""

from __future__ import annotations

from typing import Any

import pytest

from wire.dynamodb.fakes import Cluster

A: dict[str, Any] = {"S": "a"}
ONE: dict[str, Any] = {"N": "1"}
MISSED = "Query condition missed key schema element: "
MISMATCH = "One or more parameter values were invalid: Condition parameter type does not match schema type"
NOT_SUPPORTED = "Query key condition not supported"
EMPTY = "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an empty"


@pytest.mark.parametrize(
    ("table", "expression", "values", "message"),
    [
        ("tsn", "s = :a", {"a": ONE}, MISSED + "p"),
        ("tsn", "p = :a AND q = :b", {"a": A, "b": A}, MISSED + "s"),
        ("tsn", "q = :a AND r = :b", {"a": A, "b": A}, MISSED + "p"),
        ("tsn", "p = :a", {"a": ONE}, MISMATCH),
        ("tsn", "p = :a AND s = :b", {"a": A, "b": A}, MISMATCH),
        ("tsn", "p = :a AND begins_with(s, :b)", {"a": A, "b": A}, MISMATCH),
        ("tsn", "p > :a", {"a": A}, NOT_SUPPORTED),
        ("tss", "begins_with(p, :a)", {"a": A}, NOT_SUPPORTED),
        ("str", "p = :a AND s = :b", {"a": A, "b": A}, NOT_SUPPORTED),
        ("str", "p = :a", {"a": {"S": ""}}, EMPTY + " string value. Key: p"),
        ("tss", "p = :a AND s > :b", {"a": A, "b": {"S": ""}}, EMPTY + " string value. Key: s"),
        ("tsb", "p = :a AND begins_with(s, :b)", {"a": A, "b": {"B": ""}}, EMPTY + " binary value. Key: s"),
        (
            "tss",
            "p = :a AND s > :b",
            {"a": A, "b": {"S": "x" * 1025}},
            "One or more parameter values were invalid: "
            "Aggregated size of all range keys has exceeded the size limit of 1024 bytes",
        ),
        ("nope", "p = :a AND", {"a": A}, 'Invalid KeyConditionExpression: Syntax error; token: "<EOF>", near: "AND"'),
        (
            "tsn",
            "p = :a",
            {"a": {}},
            "ExpressionAttributeValues contains invalid value: Supplied AttributeValue is "
            "empty, must contain exactly one of the supported datatypes for key :a",
        ),
        ("tsn", "p = :a", {"a-": A}, 'ExpressionAttributeValues contains invalid key: Syntax error; key: ":a-"'),
        ("tsn", "", {"a": A}, "Invalid KeyConditionExpression: The expression can not be empty;"),
    ],
)
def test_wrong_key_condition_is_refused(
    cluster: Cluster, table: str, expression: str, values: dict[str, Any], message: str
) -> None:
    request = {
        "TableName": table,
        "KeyConditionExpression": expression,
        "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
    }
    assert cluster.call("Query", request) == f"ValidationException | {message}"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "Either the KeyConditions or KeyConditionExpression parameter must be specified in the request."),
        ({"KeyConditions": {}}, "Conditions can be of length 1 or 2 only"),
        (
            {"KeyConditions": {}, "KeyConditionExpression": "p = :a"},
            "Can not use both expression and non-expression parameters in the same request: "
            "Non-expression parameters: {KeyConditions} Expression parameters: {KeyConditionExpression}",
        ),
        (
            {"ExpressionAttributeValues": {":a": A}},
            "ExpressionAttributeValues can only be specified when using expressions: "
            "FilterExpression and KeyConditionExpression are null",
        ),
        (
            {"KeyConditionExpression": "p = :a", "ExpressionAttributeValues": {}},
            "ExpressionAttributeValues must not be empty",
        ),
        (
            {"KeyConditionExpression": "p = :a", "ExpressionAttributeNames": {}},
            "ExpressionAttributeNames must not be empty",
        ),
        (
            {"KeyConditionExpression": "p = :a", "ExpressionAttributeNames": {"x": "p"}},
            'ExpressionAttributeNames contains invalid key: Syntax error; key: "x"',
        ),
        (
            {"KeyConditionExpression": "", "FilterExpression": ""},
            "Invalid FilterExpression: The expression can not be empty;",
        ),
        (
            {"FilterExpression": "", "ProjectionExpression": "", "KeyConditionExpression": ""},
            "Invalid ProjectionExpression: The expression can not be empty;",
        ),
    ],
)
def test_parameters_of_a_query_must_go_together(cluster: Cluster, request_: Any, message: str) -> None:
    assert cluster.call("Query", {"TableName": "tsn", **request_}) == f"ValidationException | {message}"
