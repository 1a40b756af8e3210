from __future__ import annotations

from typing import Any

import pytest

from merganser.model.errors import TableChangedError
from wire.dynamodb.fakes import NOW_US, Cluster, served

INVALID = "ValidationException | One or more parameter values were invalid: "
NOW_S = NOW_US / 1_000_000
PROVISIONED: dict[str, Any] = {
    "TableName": "abc",
    "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
    "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 6},
}


def units(read: int, write: int) -> dict[str, int]:
    return {"ReadCapacityUnits": read, "WriteCapacityUnits": write}


def described(cluster: Cluster, name: str = "abc") -> dict[str, Any]:
    table: dict[str, Any] = cluster.call("DescribeTable", {"TableName": name})["Table"]
    return table


def update(cluster: Cluster, name: str = "abc", **changes: Any) -> dict[str, Any]:
    answer = cluster.call("UpdateTable", {"TableName": name, **changes})
    assert isinstance(answer, dict), answer
    description: dict[str, Any] = answer["TableDescription"]
    assert description["TableStatus"] == "UPDATING"
    assert described(cluster, name)["TableStatus"] == "ACTIVE"
    return description


@pytest.fixture
def provisioned(cluster: Cluster) -> Cluster:
    assert isinstance(cluster.call("CreateTable", PROVISIONED), dict)
    return cluster


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        pytest.param(
            {},
            "ValidationException | At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, "
            "GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required",
            id="nothing",
        ),
        pytest.param(
            {"BillingMode": "FREE", "ProvisionedThroughput": {"ReadCapacityUnits": 0}},
            "ValidationException | 3 validation errors detected: Value 'FREE' at 'billingMode' failed to satisfy "
            "constraint: Member must satisfy enum value set: [PROVISIONED, PAY_PER_REQUEST]; Value '0' at "
            "'provisionedThroughput.readCapacityUnits' failed to satisfy constraint: Member must have value greater "
            "than or equal to 1; Value null at 'provisionedThroughput.writeCapacityUnits' failed to satisfy "
            "constraint: Member must not be null",
            id="constraints",
        ),
        pytest.param(
            {"BillingMode": "PROVISIONED"},
            INVALID + "ProvisionedThroughput must be specified when BillingMode is PROVISIONED",
            id="provisioned without units",
        ),
        pytest.param(
            {"ProvisionedThroughput": units(1, 10**12 + 1)},
            "ValidationException | Given value 1000000000001 for WriteCapacityUnits is out of bounds",
            id="too many units",
        ),
        pytest.param(
            {"BillingMode": "PAY_PER_REQUEST", "ProvisionedThroughput": units(1, 1)},
            INVALID
            + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST",
            id="on demand with units",
        ),
        pytest.param(
            {"ProvisionedThroughput": units(5, 6)},
            "ValidationException | The provisioned throughput for the table will not change. The requested value "
            "equals the current value. Current ReadCapacityUnits provisioned for the table: 5. Requested "
            "ReadCapacityUnits: 5. Current WriteCapacityUnits provisioned for the table: 6. Requested "
            "WriteCapacityUnits: 6. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request "
            "higher limits.",
            id="same units",
        ),
        pytest.param(
            {"OnDemandThroughput": {"MaxReadRequestUnits": 1}},
            INVALID + "OnDemandThroughput can only be specified when BillingMode is PAY_PER_REQUEST",
            id="limits of a provisioned table",
        ),
        pytest.param(
            {"StreamSpecification": {"StreamEnabled": False}},
            "ValidationException | Table does not have an enabled stream to disable: TableName: abc",
            id="no stream to disable",
        ),
        pytest.param(
            {"ReplicaUpdates": []},
            "ValidationException | ReplicaUpdates is not supported yet by Merganser",
            id="global",
        ),
        pytest.param(
            {"BillingMode": 1}, "SerializationException | NUMBER_VALUE cannot be converted to String", id="JSON type"
        ),
        pytest.param(
            {"TableName": "nope", "BillingMode": "PAY_PER_REQUEST"},
            "ResourceNotFoundException | Requested resource not found: Table: nope not found",
            id="no table",
        ),
    ],
)
def test_wrong_update_is_refused_and_changes_nothing(provisioned: Cluster, changes: Any, answer: str) -> None:
    before = described(provisioned)
    assert provisioned.call("UpdateTable", {"TableName": "abc", **changes}) == answer
    assert described(provisioned) == before


def test_units_on_demand_are_refused_without_a_billing_mode_as_well(cluster: Cluster) -> None:
    assert cluster.call("UpdateTable", {"TableName": "str", "ProvisionedThroughput": units(1, 1)}) == (
        INVALID
        + "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode is PAY_PER_REQUEST"
    )


def test_units_change_with_the_dates_of_increases_and_decreases(provisioned: Cluster) -> None:
    answer = update(provisioned, ProvisionedThroughput=units(50, 6))
    assert answer["ProvisionedThroughput"] == {
        "LastIncreaseDateTime": NOW_S,
        "NumberOfDecreasesToday": 0,
        **units(5, 6),  # as they were: this is what is being updated
    }
    assert described(provisioned)["ProvisionedThroughput"] == {
        "LastIncreaseDateTime": NOW_S,
        "NumberOfDecreasesToday": 0,
        **units(50, 6),
    }
    provisioned.coordinator.now_us += 5_000_000
    update(provisioned, ProvisionedThroughput=units(60, 5))
    assert described(provisioned)["ProvisionedThroughput"] == {
        "LastIncreaseDateTime": NOW_S + 5,
        "LastDecreaseDateTime": NOW_S + 5,
        "NumberOfDecreasesToday": 1,
        **units(60, 5),
    }


def test_decreases_are_counted_by_the_day(provisioned: Cluster) -> None:
    for left in (4, 3, 2):
        update(provisioned, ProvisionedThroughput=units(left, left))
    assert described(provisioned)["ProvisionedThroughput"]["NumberOfDecreasesToday"] == 3
    provisioned.coordinator.now_us += 86_400_000_000
    assert described(provisioned)["ProvisionedThroughput"]["NumberOfDecreasesToday"] == 0
    update(provisioned, ProvisionedThroughput=units(1, 1))
    assert described(provisioned)["ProvisionedThroughput"]["NumberOfDecreasesToday"] == 1


def test_a_table_goes_on_demand_and_back(provisioned: Cluster) -> None:
    assert "BillingModeSummary" not in described(provisioned)
    answer = update(provisioned, BillingMode="PAY_PER_REQUEST")
    assert answer["BillingModeSummary"] == {"BillingMode": "PAY_PER_REQUEST"}
    on_demand = described(provisioned)
    assert on_demand["BillingModeSummary"] == {
        "BillingMode": "PAY_PER_REQUEST",
        "LastUpdateToPayPerRequestDateTime": NOW_S,
    }
    assert on_demand["ProvisionedThroughput"] == {"NumberOfDecreasesToday": 0, **units(0, 0)}
    provisioned.coordinator.now_us += 7_000_000
    answer = update(provisioned, BillingMode="PROVISIONED", ProvisionedThroughput=units(3, 4))
    assert answer["ProvisionedThroughput"]["ReadCapacityUnits"] == 3
    back = described(provisioned)
    assert back["BillingModeSummary"] == {"BillingMode": "PROVISIONED", "LastUpdateToPayPerRequestDateTime": NOW_S}
    assert back["ProvisionedThroughput"] == {
        "LastIncreaseDateTime": NOW_S + 7,
        "NumberOfDecreasesToday": 0,
        **units(3, 4),
    }


def test_protection_is_switched_on_and_off(provisioned: Cluster) -> None:
    assert update(provisioned, DeletionProtectionEnabled=True)["DeletionProtectionEnabled"] is True
    assert "protected against deletion" in provisioned.call("DeleteTable", {"TableName": "abc"})
    update(provisioned, DeletionProtectionEnabled=False)
    assert isinstance(provisioned.call("DeleteTable", {"TableName": "abc"}), dict)


def test_a_table_protected_meanwhile_is_not_deleted(provisioned: Cluster) -> None:
    drop = provisioned.catalog.drop_table

    async def late(table: Any, *, deadline: float) -> None:
        provisioned.catalog.drop_table = drop  # type: ignore[method-assign]
        await served(provisioned.dynamodb, "UpdateTable", b'{"TableName": "abc", "DeletionProtectionEnabled": true}')
        raise TableChangedError("abc")

    provisioned.catalog.drop_table = late  # type: ignore[method-assign]
    assert "protected against deletion" in provisioned.call("DeleteTable", {"TableName": "abc"})


def test_settings_are_kept_and_described(cluster: Cluster) -> None:
    cluster.call(
        "CreateTable",
        {
            **{name: value for name, value in PROVISIONED.items() if name != "ProvisionedThroughput"},
            "BillingMode": "PAY_PER_REQUEST",
            "TableClass": "STANDARD",
            "SSESpecification": {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": "1234"},
            "OnDemandThroughput": {"MaxReadRequestUnits": 10},
            "WarmThroughput": {"ReadUnitsPerSecond": 12000, "WriteUnitsPerSecond": 4000},
        },
    )
    table = described(cluster)
    assert table["TableClassSummary"] == {"TableClass": "STANDARD"}
    assert table["SSEDescription"] == {
        "Status": "ENABLED",
        "SSEType": "KMS",
        "KMSMasterKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1234",
    }
    assert table["OnDemandThroughput"] == {"MaxReadRequestUnits": 10, "MaxWriteRequestUnits": -1}
    assert table["WarmThroughput"] == {
        "ReadUnitsPerSecond": 12000,
        "WriteUnitsPerSecond": 4000,
        "Status": "ACTIVE",
    }
    update(
        cluster,
        TableClass="STANDARD_INFREQUENT_ACCESS",
        SSESpecification={"Enabled": False},
        OnDemandThroughput={"MaxWriteRequestUnits": 7},
        WarmThroughput={"WriteUnitsPerSecond": 5000},
    )
    table = described(cluster)
    assert table["TableClassSummary"] == {"TableClass": "STANDARD_INFREQUENT_ACCESS", "LastUpdateDateTime": NOW_S}
    assert "SSEDescription" not in table
    assert table["OnDemandThroughput"] == {"MaxReadRequestUnits": 10, "MaxWriteRequestUnits": 7}
    assert table["WarmThroughput"]["ReadUnitsPerSecond"] == 12000
    assert table["WarmThroughput"]["WriteUnitsPerSecond"] == 5000
    update(cluster, OnDemandThroughput={"MaxReadRequestUnits": -1, "MaxWriteRequestUnits": -1})
    assert "OnDemandThroughput" not in described(cluster)


def test_every_table_and_global_index_tells_what_it_bears_at_once(cluster: Cluster) -> None:
    """Since November 2024, whether anybody asked for it or not: what is provisioned, or 12,000 and 4,000 on demand."""
    index = {"IndexName": "byP", "KeySchema": PROVISIONED["KeySchema"], "Projection": {"ProjectionType": "KEYS_ONLY"}}
    wanted = {"IndexName": "byP", "ProvisionedThroughput": {"ReadCapacityUnits": 2, "WriteCapacityUnits": 3}}
    cluster.call("CreateTable", {**PROVISIONED, "GlobalSecondaryIndexes": [{**index, **wanted}]})
    units = PROVISIONED["ProvisionedThroughput"]
    assert warmth(described(cluster)) == (units["ReadCapacityUnits"], units["WriteCapacityUnits"], "ACTIVE")
    assert warmth(described(cluster)["GlobalSecondaryIndexes"][0]) == (2, 3, "ACTIVE")
    update(cluster, BillingMode="PAY_PER_REQUEST")
    assert warmth(described(cluster)) == (12000, 4000, "ACTIVE")
    assert warmth(described(cluster)["GlobalSecondaryIndexes"][0]) == (12000, 4000, "ACTIVE")
    update(cluster, WarmThroughput={"ReadUnitsPerSecond": 13000})
    assert warmth(described(cluster)) == (13000, 4000, "ACTIVE")
    of_index = [{"Update": {"IndexName": "byP", "WarmThroughput": {"ReadUnitsPerSecond": 1}}}]
    for asked, why in (
        ({"WarmThroughput": {"ReadUnitsPerSecond": 12999}}, f"table is lower than current {DECREASING}"),
        ({"GlobalSecondaryIndexUpdates": of_index}, "index byP is lower than initial throughput for OnDemand"),
    ):
        answer = cluster.call("UpdateTable", {"TableName": "abc", **asked})
        assert answer == f"{INVALID}Requested ReadUnitsPerSecond for WarmThroughput for {why}"
    assert warmth(described(cluster)) == (13000, 4000, "ACTIVE")


DECREASING = "WarmThroughput, decreasing WarmThroughput is not supported"


def warmth(description: dict[str, Any]) -> tuple[int, int, str]:
    warm = description["WarmThroughput"]
    return warm["ReadUnitsPerSecond"], warm["WriteUnitsPerSecond"], warm["Status"]


def test_a_stream_is_described_while_it_is_on_and_its_name_after_that(cluster: Cluster) -> None:
    wanted = {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}
    assert isinstance(cluster.call("CreateTable", {**PROVISIONED, "StreamSpecification": wanted}), dict)
    first = described(cluster)
    assert first["StreamSpecification"] == wanted
    assert first["LatestStreamArn"] == f"{first['TableArn']}/stream/{first['LatestStreamLabel']}"
    again = cluster.call("UpdateTable", {"TableName": "abc", "StreamSpecification": wanted})
    assert again == "ValidationException | Table already has an enabled stream: TableName: abc"
    off = update(cluster, StreamSpecification={"StreamEnabled": False})
    assert "StreamSpecification" not in off
    assert off["LatestStreamArn"] == first["LatestStreamArn"]
    on = update(cluster, StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"})
    assert on["StreamSpecification"]["StreamViewType"] == "KEYS_ONLY"
    assert on["LatestStreamArn"] > first["LatestStreamArn"]
