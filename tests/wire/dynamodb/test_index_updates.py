"""UpdateTable's GlobalSecondaryIndexUpdates."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from merganser.wire.dynamodb.errors import LIMIT_EXCEEDED, ApiError
from wire.dynamodb.fakes import Cluster, served
from wire.dynamodb.test_index_queries import SOME, item
from wire.dynamodb.test_index_tables import ALL, UNITS, defined, global_, local, schema, with_global

INVALID = "ValidationException | One or more parameter values were invalid: "
ONE_AT_A_TIME = (
    "LimitExceededException | Subscriber limit exceeded: Only 1 online index can be created or deleted simultaneously "
    "per table"
)


@pytest.fixture
def based(cluster: Cluster) -> Cluster:
    """Return a cluster with a table that has one global index, on demand."""
    assert "TableDescription" in cluster.call("CreateTable", with_global(global_(), kinds="psl"))
    return cluster


def request(*updates: Any, **others: Any) -> dict[str, Any]:
    return {"TableName": "ind", "GlobalSecondaryIndexUpdates": list(updates), **others}


def create(name: str = "new", *names: str, kinds: str = "x", **changes: Any) -> dict[str, Any]:
    wanted = {"Create": global_(name, *(names or ("x",)), **changes)}
    return request(wanted, AttributeDefinitions=defined(**dict.fromkeys(kinds, "S")))


def described(cluster: Cluster, index: str) -> dict[str, Any] | None:
    table = cluster.call("DescribeTable", {"TableName": "ind"})["Table"]
    return next((one for one in table.get("GlobalSecondaryIndexes", ()) if one["IndexName"] == index), None)


def test_an_index_is_added_filled_and_then_read(based: Cluster) -> None:
    based.call("PutItem", {"TableName": "ind", "Item": {**item("one", 1, x="a"), "s": {"S": "1"}}})
    told = based.call("UpdateTable", create(Projection=SOME))["TableDescription"]
    assert told["TableStatus"] == "UPDATING"
    assert [one["IndexName"] for one in told["GlobalSecondaryIndexes"]] == ["byG", "new"]
    assert told["GlobalSecondaryIndexes"][1]["Backfilling"] is False  # it has yet to begin
    added = described(based, "new")
    assert added is not None
    assert (added["IndexStatus"], added["Backfilling"]) == ("CREATING", True)
    assert (added["KeySchema"], added["Projection"]) == (schema("x"), SOME)
    query = {
        "TableName": "ind",
        "IndexName": "new",
        "KeyConditionExpression": "x = :x",
        "ExpressionAttributeValues": {":x": {"S": "a"}},
    }
    assert based.call("Query", query) == (
        "ValidationException | Cannot read from backfilling global secondary index: new"
    )
    wrong = {"p": {"S": "one"}, "s": {"S": "2"}, "x": {"N": "1"}}
    assert based.call("PutItem", {"TableName": "ind", "Item": wrong}) == (
        INVALID + "Type mismatch for Index Key x Expected: S Actual: N IndexName: new"
    )
    based.catalog.moved("ind", "new", "active")
    assert [one["s"] for one in based.call("Query", query)["Items"]] == [{"S": "1"}]
    ready = described(based, "new")
    assert ready is not None
    assert ready["IndexStatus"] == "ACTIVE"
    assert "Backfilling" not in ready
    table = based.call("DescribeTable", {"TableName": "ind"})["Table"]
    assert {one["AttributeName"] for one in table["AttributeDefinitions"]} == set("pslx")


def test_an_index_is_taken_away_and_its_attributes_with_it(based: Cluster) -> None:
    told = based.call("UpdateTable", request({"Delete": {"IndexName": "byG"}}))["TableDescription"]
    assert told["GlobalSecondaryIndexes"][0]["IndexStatus"] == "DELETING"
    query = {
        "TableName": "ind",
        "IndexName": "byG",
        "KeyConditionExpression": "l = :l",
        "ExpressionAttributeValues": {":l": {"S": "a"}},
    }
    assert based.call("Query", query) == "ValidationException | The table does not have the specified index: byG"
    assert (
        based.call("PutItem", {"TableName": "ind", "Item": {"p": {"S": "a"}, "s": {"S": "a"}, "l": {"N": "1"}}}) == {}
    )
    again = based.call("UpdateTable", request({"Delete": {"IndexName": "byG"}}))
    assert again == (
        "ResourceInUseException | Attempt to change a resource which is still in use: Index is being deleted: byG"
    )
    based.catalog.without_index("ind", "byG")
    assert described(based, "byG") is None
    table = based.call("DescribeTable", {"TableName": "ind"})["Table"]
    assert {one["AttributeName"] for one in table["AttributeDefinitions"]} == set("ps")


def test_throughput_of_an_index_is_changed_and_follows_the_billing_mode(based: Cluster) -> None:
    provisioned = {"TableName": "ind", "BillingMode": "PROVISIONED", "ProvisionedThroughput": UNITS}
    assert based.call("UpdateTable", provisioned) == (
        INVALID + "ProvisionedThroughput must be specified for index: byG"
    )
    update = {"Update": {"IndexName": "byG", "ProvisionedThroughput": UNITS}}
    based.call("UpdateTable", {**provisioned, "GlobalSecondaryIndexUpdates": [update]})
    index = described(based, "byG")
    assert index is not None
    assert (index["ProvisionedThroughput"]["ReadCapacityUnits"], index["IndexStatus"]) == (3, "ACTIVE")
    assert based.call("UpdateTable", request(update)) == (
        "ValidationException | The provisioned throughput for the index byG will not change. The requested value "
        "equals the current value. Current ReadCapacityUnits provisioned for the index: 3. Requested "
        "ReadCapacityUnits: 3. Current WriteCapacityUnits provisioned for the index: 4. Requested WriteCapacityUnits: "
        "4. Refer to the Amazon DynamoDB Developer Guide for current limits and how to request higher limits."
    )
    more = {"ReadCapacityUnits": 30, "WriteCapacityUnits": 4}
    based.call("UpdateTable", request({"Update": {"IndexName": "byG", "ProvisionedThroughput": more}}))
    index = described(based, "byG")
    assert index is not None
    assert index["ProvisionedThroughput"].items() >= more.items()
    assert "LastIncreaseDateTime" in index["ProvisionedThroughput"]
    based.call("UpdateTable", {"TableName": "ind", "BillingMode": "PAY_PER_REQUEST"})
    index = described(based, "byG")
    assert index is not None
    assert index["ProvisionedThroughput"]["ReadCapacityUnits"] == 0


def test_limits_of_an_index_on_demand_are_changed(based: Cluster) -> None:
    limits = {"MaxReadRequestUnits": 7}
    based.call("UpdateTable", request({"Update": {"IndexName": "byG", "OnDemandThroughput": limits}}))
    index = described(based, "byG")
    assert index is not None
    assert index["OnDemandThroughput"] == {"MaxReadRequestUnits": 7, "MaxWriteRequestUnits": -1}


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            request({}),
            INVALID + "One of GlobalSecondaryIndexUpdate.Update, GlobalSecondaryIndexUpdate.Create, "
            "GlobalSecondaryIndexUpdate.Delete must not be null",
        ),
        (
            request({"Delete": {"IndexName": "byG"}}, {"Delete": {"IndexName": "byG"}}),
            INVALID + "Only one global secondary index update per index is allowed simultaneously. Index: byG",
        ),
        (request({"Delete": {"IndexName": "byG"}}, {"Delete": {"IndexName": "other"}}), ONE_AT_A_TIME),
        (request({"Delete": {"IndexName": "other"}}), "ResourceNotFoundException | Requested resource not found"),
        (create("byG"), "ValidationException | Attempting to create an index which already exists"),
        (
            create("new", "y"),
            INVALID + "Some index key attributes are not defined in AttributeDefinitions. Keys: [y], "
            "AttributeDefinitions: [p, s, l, x]",
        ),
        (
            create(kinds="xy"),
            INVALID + "Some AttributeDefinitions are not used. AttributeDefinitions: [x, y], keys used: [p, s, l, x]",
        ),
        (
            create(ProvisionedThroughput=UNITS),
            INVALID + "ProvisionedThroughput should not be specified for index: new when BillingMode is "
            "PAY_PER_REQUEST",
        ),
        (
            create(Projection={"ProjectionType": "INCLUDE"}),
            INVALID + "ProjectionType is INCLUDE, but NonKeyAttributes is not specified",
        ),
        (
            {**create(), "AttributeDefinitions": defined(x="S", l="N")},
            INVALID + "Attribute l is of type S, and AttributeDefinitions says N",
        ),
        (
            request({"Update": {"IndexName": "byG", "ProvisionedThroughput": UNITS}}),
            INVALID + "ProvisionedThroughput should not be specified for index: byG when BillingMode is "
            "PAY_PER_REQUEST",
        ),
        (
            request({"Create": {"IndexName": "a"}}),
            "ValidationException | 3 validation errors detected: Value 'a' at "
            "'globalSecondaryIndexUpdates.1.member.create.indexName' failed to satisfy constraint: Member must have "
            "length greater than or equal to 3; Value null at "
            "'globalSecondaryIndexUpdates.1.member.create.keySchema' failed to satisfy constraint: Member must not be "
            "null; Value null at 'globalSecondaryIndexUpdates.1.member.create.projection' failed to satisfy "
            "constraint: Member must not be null",
        ),
    ],
)
def test_updates_that_make_no_sense_are_refused(based: Cluster, request_: Any, answer: str) -> None:
    before = based.call("DescribeTable", {"TableName": "ind"})
    assert based.call("UpdateTable", request_) == answer
    assert based.call("DescribeTable", {"TableName": "ind"}) == before


def test_one_index_comes_or_goes_at_a_time(based: Cluster) -> None:
    based.call("UpdateTable", create())
    assert based.call("UpdateTable", create("more", "y", kinds="y")) == ONE_AT_A_TIME
    assert based.call("UpdateTable", request({"Delete": {"IndexName": "byG"}})) == ONE_AT_A_TIME
    assert "TableDescription" in based.call("UpdateTable", request({"Delete": {"IndexName": "new"}}))


def test_of_two_indexes_asked_for_at_the_same_time_one_comes(based: Cluster) -> None:
    first, second = at_once(based, create(), create("more", "y", kinds="y"))
    assert isinstance(first, bytes)
    assert isinstance(second, ApiError)
    assert second.kind is LIMIT_EXCEEDED
    assert described(based, "more") is None


def at_once(cluster: Cluster, *requests: Any) -> list[Any]:
    """Have several UpdateTables see the table as it is before any of them has changed it."""

    async def all_of_them() -> list[Any]:
        calls = [served(cluster.dynamodb, "UpdateTable", orjson.dumps(one)) for one in requests]
        return await asyncio.gather(*calls, return_exceptions=True)

    return cluster.run(all_of_them())


PROVISIONED = {"BillingMode": "PROVISIONED", "ProvisionedThroughput": UNITS}
BY_G = {"Update": {"IndexName": "byG", "ProvisionedThroughput": UNITS}}
UNSAID = "One or more parameter values were invalid: ProvisionedThroughput must be specified for index: new"


@pytest.mark.parametrize("is_first", [True, False], ids=["the index first", "the mode first"])
def test_an_index_and_another_billing_mode_asked_for_at_the_same_time_are_checked_together(
    based: Cluster, is_first: bool
) -> None:
    index, mode = create(), request(BY_G, **PROVISIONED)
    first, second = at_once(based, *((index, mode) if is_first else (mode, index)))
    assert isinstance(first, bytes)
    assert isinstance(second, ApiError)
    assert UNSAID in second.message if is_first else "ProvisionedThroughput" in second.message
    table = based.call("DescribeTable", {"TableName": "ind"})["Table"]
    assert (table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST") == is_first
    units = [one["ProvisionedThroughput"]["ReadCapacityUnits"] for one in table["GlobalSecondaryIndexes"]]
    assert units == ([0, 0] if is_first else [UNITS["ReadCapacityUnits"]])


@pytest.mark.parametrize("is_first", [True, False], ids=["the index first", "the mode first"])
def test_an_index_that_fits_both_billing_modes_comes_with_either(cluster: Cluster, is_first: bool) -> None:
    assert "TableDescription" in cluster.call("CreateTable", with_global(global_(), kinds="psl"))
    both = request(
        {"Create": global_("new", "x", ProvisionedThroughput=UNITS)},
        BY_G,
        AttributeDefinitions=defined(x="S"),
        **PROVISIONED,
    )
    protected = {"TableName": "ind", "DeletionProtectionEnabled": True}
    answers = at_once(cluster, *((both, protected) if is_first else (protected, both)))
    assert all(isinstance(answer, bytes) for answer in answers)
    table = cluster.call("DescribeTable", {"TableName": "ind"})["Table"]
    assert table["DeletionProtectionEnabled"]
    assert [one["IndexName"] for one in table["GlobalSecondaryIndexes"]] == ["byG", "new"]
    assert all(one["ProvisionedThroughput"]["ReadCapacityUnits"] for one in table["GlobalSecondaryIndexes"])


def test_settings_that_come_with_an_index_are_changed_only_if_it_comes(based: Cluster) -> None:
    first, second = at_once(based, create(), {**create(), "DeletionProtectionEnabled": True})
    assert isinstance(first, bytes)
    assert isinstance(second, ApiError)
    assert not based.call("DescribeTable", {"TableName": "ind"})["Table"]["DeletionProtectionEnabled"]
    first, second = at_once(
        based,
        request({"Delete": {"IndexName": "new"}}),
        request({"Delete": {"IndexName": "new"}}, DeletionProtectionEnabled=True),
    )
    assert isinstance(first, bytes)
    assert isinstance(second, ApiError)
    assert not based.call("DescribeTable", {"TableName": "ind"})["Table"]["DeletionProtectionEnabled"]


def test_a_local_index_has_its_name_for_itself(cluster: Cluster) -> None:
    cluster.call(
        "CreateTable",
        {**with_global(), "GlobalSecondaryIndexes": None, "LocalSecondaryIndexes": [local()]},
    )
    assert cluster.call("UpdateTable", create("byL")) == (
        "ValidationException | Attempting to create an index which already exists"
    )
    assert "TableDescription" in cluster.call("UpdateTable", create("byX", Projection=ALL))
