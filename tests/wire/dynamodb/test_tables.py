from __future__ import annotations

from typing import Any

import pytest

from wire.dynamodb.fakes import NOW_US, Cluster

INVALID = "ValidationException | One or more parameter values were invalid: "
CONSTRAINT = "failed to satisfy constraint: "
P = {"AttributeName": "p", "KeyType": "HASH"}
S = {"AttributeName": "s", "KeyType": "RANGE"}
PS = {"AttributeName": "p", "AttributeType": "S"}
SN = {"AttributeName": "s", "AttributeType": "N"}
UNITS = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6}
GOOD: dict[str, Any] = {
    "TableName": "abc",
    "AttributeDefinitions": [PS],
    "KeySchema": [P],
    "ProvisionedThroughput": UNITS,
}


def without(*names: str, **others: Any) -> dict[str, Any]:
    return {**{name: value for name, value in GOOD.items() if name not in names}, **others}


def violation(*messages: str) -> str:
    plural = "s" if len(messages) > 1 else ""
    return f"ValidationException | {len(messages)} validation error{plural} detected: {'; '.join(messages)}"


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(
            {},
            "ValidationException | The parameter 'TableName' is required but was not present in the request",
            id="nothing",
        ),
        pytest.param(
            without(TableName="ab"),
            "ValidationException | TableName must be at least 3 characters long and at most 255 characters long",
            id="short name",
        ),
        pytest.param(
            {"TableName": "a;c"},
            violation(
                f"Value 'a;c' at 'tableName' {CONSTRAINT}Member must satisfy regular expression pattern: "
                "[a-zA-Z0-9_.-]+",
                f"Value null at 'attributeDefinitions' {CONSTRAINT}Member must not be null",
                f"Value null at 'keySchema' {CONSTRAINT}Member must not be null",
            ),
            id="several at once",
        ),
        pytest.param(
            without(KeySchema=[]),
            violation(f"Value '[]' at 'keySchema' {CONSTRAINT}Member must have length greater than or equal to 1"),
            id="no keys",
        ),
        pytest.param(
            without(KeySchema=[P, S, P]),
            violation(
                "Value '[KeySchemaElement(attributeName=p, keyType=HASH), KeySchemaElement(attributeName=s, "
                "keyType=RANGE), KeySchemaElement(attributeName=p, keyType=HASH)]' at 'keySchema' "
                f"{CONSTRAINT}Member must have length less than or equal to 2"
            ),
            id="three keys",
        ),
        pytest.param(
            without(AttributeDefinitions=[{"AttributeName": "p", "AttributeType": "Z"}, {"AttributeType": "S"}]),
            violation(
                f"Value 'Z' at 'attributeDefinitions.1.member.attributeType' {CONSTRAINT}"
                "Member must satisfy enum value set: [B, N, S]",
                f"Value null at 'attributeDefinitions.2.member.attributeName' {CONSTRAINT}Member must not be null",
            ),
            id="inside definitions",
        ),
        pytest.param(
            without(ProvisionedThroughput={"ReadCapacityUnits": 0}),
            violation(
                f"Value '0' at 'provisionedThroughput.readCapacityUnits' {CONSTRAINT}"
                "Member must have value greater than or equal to 1",
                f"Value null at 'provisionedThroughput.writeCapacityUnits' {CONSTRAINT}Member must not be null",
            ),
            id="no units",
        ),
        pytest.param(
            without("ProvisionedThroughput"),
            INVALID + "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is PROVISIONED",
            id="provisioned without units",
        ),
        pytest.param(
            without(BillingMode="PAY_PER_REQUEST"),
            INVALID
            + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST",
            id="on demand with units",
        ),
        pytest.param(
            without(ProvisionedThroughput={"ReadCapacityUnits": 10**12 + 1, "WriteCapacityUnits": 1}),
            "ValidationException | Given value 1000000000001 for ReadCapacityUnits is out of bounds",
            id="too many units",
        ),
        pytest.param(
            without(KeySchema=[{"AttributeName": "p", "KeyType": "RANGE"}]),
            "ValidationException | Invalid KeySchema: The first KeySchemaElement is not a HASH key type",
            id="no hash",
        ),
        pytest.param(
            without(AttributeDefinitions=[PS, SN], KeySchema=[P, {"AttributeName": "s", "KeyType": "HASH"}]),
            "ValidationException | Invalid KeySchema: The second KeySchemaElement is not a RANGE key type",
            id="two hashes",
        ),
        pytest.param(
            without(KeySchema=[P, {"AttributeName": "p", "KeyType": "RANGE"}]),
            "ValidationException | Both the Hash Key and the Range Key element in the KeySchema have the same name",
            id="one attribute twice",
        ),
        pytest.param(
            without(KeySchema=[P, S]),
            "ValidationException | Invalid KeySchema: Some index key attribute have no definition",
            id="undefined key",
        ),
        pytest.param(
            without(AttributeDefinitions=[PS, SN]),
            INVALID + "Number of attributes in KeySchema does not exactly match number of attributes defined in "
            "AttributeDefinitions",
            id="needless definition",
        ),
        pytest.param(
            without(GlobalSecondaryIndexes=[]), INVALID + "List of GlobalSecondaryIndexes is empty", id="no indexes"
        ),
        pytest.param(
            without(StreamSpecification={"StreamEnabled": True}),
            INVALID + "StreamViewType is required when StreamEnabled is true",
            id="stream without a view",
        ),
        pytest.param(
            without(StreamSpecification={"StreamEnabled": False, "StreamViewType": "NEW_IMAGE"}),
            INVALID + "StreamViewType can only be specified when StreamEnabled is true",
            id="view of no stream",
        ),
        pytest.param(
            without(SSESpecification={"KMSMasterKeyId": "key"}),
            INVALID + "KMSMasterKeyId can only be specified when Enabled is true",
            id="key for nothing",
        ),
        pytest.param(
            without(SSESpecification={"Enabled": True, "SSEType": "DES"}, StreamSpecification={}),
            violation(
                f"Value null at 'streamSpecification.streamEnabled' {CONSTRAINT}Member must not be null",
                f"Value 'DES' at 'sSESpecification.sSEType' {CONSTRAINT}"
                "Member must satisfy enum value set: [AES256, KMS]",
            ),
            id="inside settings",
        ),
        pytest.param(
            without(OnDemandThroughput={"MaxReadRequestUnits": 5}),
            INVALID + "OnDemandThroughput can only be specified when BillingMode is PAY_PER_REQUEST",
            id="limits of a provisioned table",
        ),
        pytest.param(
            without("ProvisionedThroughput", BillingMode="PAY_PER_REQUEST", OnDemandThroughput={}),
            INVALID + "At least one of MaxReadRequestUnits or MaxWriteRequestUnits must be specified",
            id="no limits",
        ),
        pytest.param(
            without(WarmThroughput={"ReadUnitsPerSecond": -1}),
            INVALID + "Given value -1 for ReadUnitsPerSecond is out of bounds",
            id="cold",
        ),
        pytest.param(
            without(
                "ProvisionedThroughput", BillingMode="PAY_PER_REQUEST", WarmThroughput={"WriteUnitsPerSecond": 3999}
            ),
            INVALID + "Requested WriteUnitsPerSecond for WarmThroughput for table is lower than initial throughput for "
            "OnDemand",
            id="colder than any table on demand",
        ),
        pytest.param(
            without(WarmThroughput={"WriteUnitsPerSecond": 5}),
            INVALID + "Requested WriteUnitsPerSecond for WarmThroughput for table is lower than WriteCapacityUnits of "
            "ProvisionedThroughput",
            id="colder than what is provisioned",
        ),
        pytest.param(
            without(ProvisionedThroughput={"ReadCapacityUnits": "1"}),
            "SerializationException | STRING_VALUE cannot be converted to Long",
            id="units as text",
        ),
    ],
)
def test_wrong_table_is_refused(cluster: Cluster, request_: Any, answer: str) -> None:
    assert cluster.call("CreateTable", request_) == answer


def test_table_is_described_as_dynamodb_describes_it(cluster: Cluster) -> None:
    request = without(AttributeDefinitions=[SN, PS], KeySchema=[P, S], Tags=[{"Key": "a", "Value": "b"}])
    created = cluster.call("CreateTable", request)["TableDescription"]
    assert created == {
        "AttributeDefinitions": [PS, SN],
        "TableName": "abc",
        "KeySchema": [P, S],
        "TableStatus": "CREATING",
        "CreationDateTime": NOW_US / 1_000_000,
        "ProvisionedThroughput": {"NumberOfDecreasesToday": 0, **UNITS},
        "TableArn": "arn:aws:dynamodb:us-east-1:000000000000:table/abc",
        "TableId": created["TableId"],
        "DeletionProtectionEnabled": False,
        "WarmThroughput": {"ReadUnitsPerSecond": 5, "WriteUnitsPerSecond": 6, "Status": "UPDATING"},
        "ItemCount": 0,
        "TableSizeBytes": 0,
    }
    active = {**created, "TableStatus": "ACTIVE", "WarmThroughput": {**created["WarmThroughput"], "Status": "ACTIVE"}}
    assert cluster.call("DescribeTable", {"TableName": "abc"}) == {"Table": active}
    assert cluster.call("DeleteTable", {"TableName": "abc"}) == {
        "TableDescription": {**active, "TableStatus": "DELETING"}
    }


def test_items_are_counted(cluster: Cluster, leaderless: Cluster) -> None:
    for name in "a", "b":
        cluster.call("PutItem", {"TableName": "str", "Item": {"p": {"S": name}, "q": {"S": "12345"}}})
    table = cluster.call("DescribeTable", {"TableName": "str"})["Table"]
    assert (table["ItemCount"], table["TableSizeBytes"]) == (2, 16)
    assert "ItemCount" not in leaderless.call("DescribeTable", {"TableName": "str"})["Table"]


@pytest.mark.parametrize(
    ("tags", "replication"),
    [
        ([], "leader"),
        ([{"Key": "merganser:replication", "Value": "leader"}], "leader"),
        ([{"Key": "a", "Value": "leaderless"}, {"Key": "merganser:replication", "Value": "leaderless"}], "leaderless"),
    ],
)
def test_a_tag_chooses_the_protocol_of_a_table(cluster: Cluster, tags: Any, replication: str) -> None:
    cluster.call("CreateTable", {**GOOD, "Tags": tags})
    (table,) = [table for table in cluster.catalog.tables("dynamodb") if table.name == "abc"]
    assert table.replication == replication


def test_a_protocol_that_there_is_not_is_refused(cluster: Cluster) -> None:
    tags = [{"Key": "merganser:replication", "Value": "quorum"}]
    assert cluster.call("CreateTable", {**GOOD, "Tags": tags}) == (
        "ValidationException | One or more parameter values were invalid: The tag merganser:replication is 'quorum', "
        "and can be leader, which it is without the tag, or leaderless"
    )


def test_on_demand_table_says_since_when(cluster: Cluster) -> None:
    table = cluster.call("DescribeTable", {"TableName": "str"})["Table"]
    assert table["BillingModeSummary"] == {
        "BillingMode": "PAY_PER_REQUEST",
        "LastUpdateToPayPerRequestDateTime": NOW_US / 1_000_000,
    }
    assert table["ProvisionedThroughput"]["ReadCapacityUnits"] == 0


def test_second_table_of_a_name_is_refused(cluster: Cluster) -> None:
    cluster.call("CreateTable", GOOD)
    assert cluster.call("CreateTable", GOOD) == "ResourceInUseException | Table already exists: abc"


@pytest.mark.parametrize("operation", ["DescribeTable", "DeleteTable"])
def test_unknown_table_is_named(cluster: Cluster, operation: str) -> None:
    answer = cluster.call(operation, {"TableName": "nope"})
    assert answer == "ResourceNotFoundException | Requested resource not found: Table: nope not found"


def test_protected_table_is_not_deleted(cluster: Cluster) -> None:
    created = cluster.call("CreateTable", {**GOOD, "DeletionProtectionEnabled": True})
    assert created["TableDescription"]["DeletionProtectionEnabled"] is True
    assert cluster.call("DeleteTable", {"TableName": "abc"}) == (
        "ValidationException | Resource cannot be deleted as it is currently protected against deletion. "
        "Disable deletion protection first."
    )
    assert "abc" in cluster.call("ListTables", {})["TableNames"]


def test_tables_are_listed_in_pages(cluster: Cluster) -> None:
    names = ["bin", "num", "str", "tsb", "tsn", "tss"]
    assert cluster.call("ListTables", {}) == {"TableNames": names}
    assert cluster.call("ListTables", {"Limit": 6}) == {"TableNames": names}
    first = cluster.call("ListTables", {"Limit": 4})
    assert first == {"TableNames": names[:4], "LastEvaluatedTableName": "tsb"}
    assert cluster.call("ListTables", {"ExclusiveStartTableName": "tsb"}) == {"TableNames": names[4:]}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            {"Limit": 0},
            violation(f"Value '0' at 'limit' {CONSTRAINT}Member must have value greater than or equal to 1"),
        ),
        (
            {"Limit": 101},
            violation(f"Value '101' at 'limit' {CONSTRAINT}Member must have value less than or equal to 100"),
        ),
        (
            {"ExclusiveStartTableName": "a"},
            "ValidationException | ExclusiveStartTableName must be at least 3 characters long and at most 255 "
            "characters long",
        ),
        ({"Limit": "1"}, "SerializationException | STRING_VALUE cannot be converted to Integer"),
    ],
)
def test_wrong_listing_is_refused(cluster: Cluster, request_: Any, answer: str) -> None:
    assert cluster.call("ListTables", request_) == answer
