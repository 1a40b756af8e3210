from __future__ import annotations

from typing import Any

import pytest

from merganser.wire.dynamodb.arns import is_resource, name_of, table_arn, table_in
from wire.dynamodb.fakes import Cluster

ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/str"  # of a region and an account that nobody knows here
KEY = {"p": {"S": "a"}}


@pytest.mark.parametrize(
    ("arn", "name"),
    [
        (ARN, "str"),
        (table_arn("a.b-c_D", region="us-east-1", account="000000000000"), "a.b-c_D"),
        ("arn:aws-cn:dynamodb:cn-north-1:1:table/abc", "abc"),
        (ARN + "/index/i", None),
        (ARN[:-1], None),  # two characters
        ("arn:aws:s3:::bucket/abc", None),
        ("str", None),
    ],
)
def test_an_arn_names_a_table_or_none(arn: str, name: str | None) -> None:
    assert table_in(arn) == name
    assert name_of(arn) == (arn if name is None else name)


def test_only_what_looks_like_an_arn_is_one() -> None:
    assert is_resource("arn:aws:s3:::bucket/abc") is False  # without region and account
    assert is_resource(ARN)
    assert not is_resource("str")


def test_operations_take_an_arn_for_a_name_and_answer_with_it(cluster: Cluster) -> None:
    put: dict[str, Any] = {"TableName": ARN, "Item": KEY, "ReturnConsumedCapacity": "TOTAL"}
    assert cluster.call("PutItem", put)["ConsumedCapacity"]["TableName"] == ARN
    assert cluster.call("GetItem", {"TableName": "str", "Key": KEY})["Item"] == KEY
    assert cluster.call("Scan", {"TableName": ARN})["Items"] == [KEY]
    read = cluster.call("BatchGetItem", {"RequestItems": {ARN: {"Keys": [KEY]}}})
    assert read == {"Responses": {ARN: [KEY]}, "UnprocessedKeys": {}}
    cluster.call("BatchWriteItem", {"RequestItems": {ARN: [{"DeleteRequest": {"Key": KEY}}]}})
    assert cluster.call("TransactGetItems", {"TransactItems": [{"Get": {"TableName": ARN, "Key": KEY}}]}) == {
        "Responses": [{}]
    }
    assert cluster.call("DescribeTable", {"TableName": ARN})["Table"]["TableName"] == "str"
    assert isinstance(cluster.call("UpdateTable", {"TableName": ARN, "DeletionProtectionEnabled": False}), dict)
    assert cluster.call("DeleteTable", {"TableName": ARN})["TableDescription"]["TableName"] == "str"
    assert "str" not in cluster.call("ListTables", {})["TableNames"]


def test_a_table_is_created_under_the_name_in_an_arn(cluster: Cluster) -> None:
    request = {
        "TableName": ARN[:-3] + "new",
        "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    assert cluster.call("CreateTable", request)["TableDescription"]["TableName"] == "new"


def test_an_arn_of_no_table_is_no_name(cluster: Cluster) -> None:
    answer = cluster.call("GetItem", {"TableName": ARN + "/index/i", "Key": KEY})
    assert "failed to satisfy constraint: Member must satisfy regular expression pattern" in answer
    assert cluster.call("DescribeTable", {"TableName": ARN + "nope"}) == (
        "ResourceNotFoundException | Requested resource not found: Table: strnope not found"
    )
