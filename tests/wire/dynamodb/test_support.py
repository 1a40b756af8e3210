"""Requests of every operation of botocore's model that are served, and what becomes of the other operations."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from merganser.wire.dynamodb.shapes import OPERATIONS
from merganser.wire.dynamodb.unserved import UNSERVED_OPERATIONS
from wire.dynamodb.api import model
from wire.dynamodb.fakes import Cluster, served

KEY = {"p": {"S": "a"}}
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/str"
EMPTY_ANSWERS = ("TagResource", "UntagResource")
BASES: dict[str, dict[str, Any]] = {
    "CreateTable": {
        "TableName": "new",
        "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    },
    "UpdateTable": {"TableName": "str", "DeletionProtectionEnabled": True},
    "DescribeTable": {"TableName": "str"},
    "DeleteTable": {"TableName": "str"},
    "ListTables": {},
    "TagResource": {"ResourceArn": ARN, "Tags": [{"Key": "a", "Value": "b"}]},
    "UntagResource": {"ResourceArn": ARN, "TagKeys": ["a"]},
    "ListTagsOfResource": {"ResourceArn": ARN},
    "UpdateTimeToLive": {
        "TableName": "str",
        "TimeToLiveSpecification": {"Enabled": True, "AttributeName": "a"},
    },
    "DescribeTimeToLive": {"TableName": "str"},
    "DescribeLimits": {},
    "DescribeEndpoints": {},
    "DescribeContinuousBackups": {"TableName": "str"},
    "PutItem": {"TableName": "str", "Item": KEY},
    "DeleteItem": {"TableName": "str", "Key": KEY},
    "UpdateItem": {
        "TableName": "str",
        "Key": KEY,
        "UpdateExpression": "SET q = :q",
        "ExpressionAttributeValues": {":q": {"S": "a"}},
    },
    "GetItem": {"TableName": "str", "Key": KEY},
    "BatchWriteItem": {"RequestItems": {"str": [{"PutRequest": {"Item": KEY}}]}},
    "BatchGetItem": {"RequestItems": {"str": {"Keys": [KEY]}}},
    "TransactWriteItems": {"TransactItems": [{"Put": {"TableName": "str", "Item": KEY}}]},
    "TransactGetItems": {"TransactItems": [{"Get": {"TableName": "str", "Key": KEY}}]},
    "Scan": {"TableName": "str"},
    "Query": {
        "TableName": "str",
        "KeyConditionExpression": "p = :p",
        "ExpressionAttributeValues": {":p": {"S": "a"}},
    },
}


def members(operation: str) -> dict[str, Any]:
    shape = model().operation_model(operation).input_shape
    assert shape is not None
    return dict(shape.members)


def sample(shape: Any) -> Any:
    """A value of a shape; of an enumeration one that asks for something."""
    if shape.type_name == "string":
        return next((value for value in shape.enum if value != "NONE"), "abc")
    if shape.type_name == "structure":
        return {name: sample(member) for name, member in shape.members.items() if name in shape.required_members} or {
            "StreamEnabled": True
        }
    if shape.type_name == "list":
        return [sample(shape.member)]
    if shape.type_name == "map":
        return {"abc": {"S": "a"} if shape.value.name == "AttributeValue" else sample(shape.value)}
    return True if shape.type_name == "boolean" else 1


def test_every_served_operation_is_described() -> None:
    assert set(BASES) == set(OPERATIONS)
    assert set(OPERATIONS) <= set(model().operation_names)


@pytest.mark.parametrize("operation", sorted(BASES))
def test_base_request_is_served(cluster: Cluster, operation: str) -> None:
    if operation in EMPTY_ANSWERS:
        assert cluster.run(served(cluster.dynamodb, operation, orjson.dumps(BASES[operation]))) == b""
    else:
        assert isinstance(cluster.call(operation, BASES[operation]), dict)


@pytest.mark.parametrize("operation", sorted(BASES))
@pytest.mark.parametrize("value", ["x", 1, ["x"], {"p": {"Action": "x", "ComparisonOperator": "x"}}], ids=str)
def test_members_of_other_operations_are_ignored_whatever_they_are(
    cluster: Cluster, operation: str, value: Any
) -> None:
    own = set(members(operation))
    foreign = {name: value for other in BASES for name in members(other) if name not in own}
    foreign |= {"Statement": value, "": value}
    given = orjson.dumps({**foreign, **BASES[operation]})
    answer = cluster.run(served(cluster.dynamodb, operation, given))
    assert answer == b"" if operation in EMPTY_ANSWERS else b"__type" not in answer


@pytest.mark.parametrize("operation", sorted(set(model().operation_names) - set(BASES)))
def test_operation_that_is_not_served_is_unknown(cluster: Cluster, operation: str) -> None:
    assert operation in UNSERVED_OPERATIONS
    refusal = f"{operation} is not supported yet by Merganser"
    assert cluster.call(operation, {}) == f"UnknownOperationException | {refusal}"


def test_every_operation_of_the_api_is_served_or_refused_by_name() -> None:
    assert set(model().operation_names) == OPERATIONS.keys() | UNSERVED_OPERATIONS
    assert not OPERATIONS.keys() & UNSERVED_OPERATIONS
