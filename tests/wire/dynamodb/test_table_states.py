"""Tables that stay in their states for a while, as those of DynamoDB do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.model.errors import TableChangedError, UnavailableError
from merganser.wire.dynamodb.table_states import Status, Transition, is_over, is_unserved, lasting
from wire.dynamodb.fakes import Cluster, served

DELAY_MS = 2000
IN_USE = "ResourceInUseException | Attempt to change a resource which is still in use: Table is being "
GONE = "ResourceNotFoundException | Requested resource not found: Table: abc not found"
UNSERVED = "ResourceNotFoundException | Requested resource not found"
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/abc"
UNITS = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5}
FEWER = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 4}
PS = {"AttributeName": "p", "AttributeType": "S"}
P = {"AttributeName": "p", "KeyType": "HASH"}
INDEX = {
    "IndexName": "byq",
    "KeySchema": [{"AttributeName": "q", "KeyType": "HASH"}],
    "Projection": {"ProjectionType": "ALL"},
    "ProvisionedThroughput": UNITS,
}
TABLE: dict[str, Any] = {
    "TableName": "abc",
    "AttributeDefinitions": [PS, {"AttributeName": "q", "AttributeType": "S"}],
    "KeySchema": [P],
    "ProvisionedThroughput": UNITS,
    "GlobalSecondaryIndexes": [INDEX],
}
NAMED = {"TableName": "abc"}
ITEM = {"p": {"S": "a"}}
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("UpdateTable", {**NAMED, "ProvisionedThroughput": FEWER}),
    ("UpdateTimeToLive", {**NAMED, "TimeToLiveSpecification": {"Enabled": True, "AttributeName": "t"}}),
    ("TagResource", {"ResourceArn": ARN, "Tags": [{"Key": "a", "Value": "b"}]}),
    ("UntagResource", {"ResourceArn": ARN, "TagKeys": ["a"]}),
]
ON_ITEMS: list[tuple[str, dict[str, Any]]] = [
    ("PutItem", {**NAMED, "Item": ITEM}),
    ("GetItem", {**NAMED, "Key": ITEM}),
    ("UpdateItem", {**NAMED, "Key": ITEM}),
    ("DeleteItem", {**NAMED, "Key": ITEM}),
    ("BatchGetItem", {"RequestItems": {"abc": {"Keys": [ITEM]}}}),
    ("BatchWriteItem", {"RequestItems": {"abc": [{"DeleteRequest": {"Key": ITEM}}]}}),
    ("TransactGetItems", {"TransactItems": [{"Get": {**NAMED, "Key": ITEM}}]}),
    ("TransactWriteItems", {"TransactItems": [{"Delete": {**NAMED, "Key": ITEM}}]}),
    ("Scan", NAMED),
    ("Query", {**NAMED, "KeyConditionExpression": "p = :p", "ExpressionAttributeValues": {":p": {"S": "a"}}}),
    ("GetItem", {"TableName": ARN, "Key": ITEM}),
]


@pytest.fixture
def slow() -> Iterator[Cluster]:
    """A cluster whose tables take two seconds, with a table that is being created."""
    cluster = Cluster(table_delay_ms=DELAY_MS)
    answer = done(cluster, "CreateTable", TABLE)["TableDescription"]
    assert answer["TableStatus"] == "CREATING"
    yield cluster
    cluster.close()


@pytest.fixture
def active(slow: Cluster) -> Cluster:
    """The same, once it is there."""
    slow.passes(DELAY_MS)
    return slow


@pytest.fixture
def deleting(active: Cluster) -> Cluster:
    """The same, while it is being deleted."""
    assert done(active, "DeleteTable", NAMED)["TableDescription"]["TableStatus"] == "DELETING"
    return active


def done(cluster: Cluster, operation: str, request: dict[str, Any]) -> dict[str, Any]:
    answer = cluster.call(operation, request)
    assert isinstance(answer, dict), answer
    return answer


def described(cluster: Cluster) -> dict[str, Any]:
    table: dict[str, Any] = done(cluster, "DescribeTable", NAMED)["Table"]
    return table


def statuses(cluster: Cluster) -> tuple[str, str]:
    table = described(cluster)
    return table["TableStatus"], table["GlobalSecondaryIndexes"][0]["IndexStatus"]


def throughput(told: dict[str, Any]) -> tuple[int, int]:
    """Return the units to write, and how often they were decreased today, of a table or index as it is described."""
    units = told["ProvisionedThroughput"]
    return units["WriteCapacityUnits"], units["NumberOfDecreasesToday"]


def names(cluster: Cluster) -> list[str]:
    listed: list[str] = done(cluster, "ListTables", {})["TableNames"]
    return listed


def test_a_table_is_creating_with_its_indexes_until_its_time_has_come(slow: Cluster) -> None:
    assert names(slow) == ["abc"]
    slow.passes(DELAY_MS - 1)
    assert statuses(slow) == ("CREATING", "CREATING")
    slow.passes(1)
    assert statuses(slow) == ("ACTIVE", "ACTIVE")


@pytest.mark.parametrize(("operation", "request_"), ON_ITEMS)
def test_items_are_there_only_while_the_table_is(active: Cluster, operation: str, request_: dict[str, Any]) -> None:
    active.passes(-1)
    assert active.call(operation, request_) == UNSERVED
    active.passes(1)
    done(active, operation, request_)
    done(active, "UpdateTable", {**NAMED, "ProvisionedThroughput": FEWER})
    done(active, operation, request_)  # UPDATING is no reason not to serve
    active.passes(DELAY_MS)
    done(active, "DeleteTable", NAMED)
    assert active.call(operation, request_) == UNSERVED


@pytest.mark.parametrize(("operation", "request_"), [*CHANGES, ("DeleteTable", NAMED)])
def test_a_table_that_is_being_created_is_not_changed(slow: Cluster, operation: str, request_: dict[str, Any]) -> None:
    before = described(slow)
    assert slow.call(operation, request_) == f"{IN_USE}created: abc"
    assert described(slow) == before


@pytest.mark.parametrize(("operation", "request_"), CHANGES)
def test_a_table_that_is_being_deleted_is_not_changed(
    deleting: Cluster, operation: str, request_: dict[str, Any]
) -> None:
    before = described(deleting)
    assert deleting.call(operation, request_) == f"{IN_USE}deleted: abc"
    assert described(deleting) == before


def test_a_table_that_is_being_updated_is_neither_updated_nor_deleted(active: Cluster) -> None:
    done(active, "UpdateTable", {**NAMED, "ProvisionedThroughput": FEWER})
    more = {**NAMED, "ProvisionedThroughput": UNITS}
    for operation, request in ("UpdateTable", more), ("DeleteTable", NAMED):
        assert active.call(operation, request) == f"{IN_USE}updated: abc"
    assert active.fault_or_none("TagResource", {"ResourceArn": ARN, "Tags": [{"Key": "a", "Value": "b"}]}) is None
    assert described(active)["TableStatus"] == "UPDATING"  # as before the tag
    active.passes(DELAY_MS)
    done(active, "UpdateTable", more)


def test_an_updated_table_is_described_as_it_was_until_its_time_has_come(active: Cluster) -> None:
    answer = done(active, "UpdateTable", {**NAMED, "ProvisionedThroughput": FEWER})["TableDescription"]
    for told in answer, described(active):
        assert told["TableStatus"] == "UPDATING"
        assert told["GlobalSecondaryIndexes"][0]["IndexStatus"] == "ACTIVE"
        assert throughput(told) == (5, 0)
    active.passes(DELAY_MS)
    assert described(active)["TableStatus"] == "ACTIVE"
    assert throughput(described(active)) == (4, 1)


def test_a_table_that_goes_on_demand_takes_its_indexes_along(active: Cluster) -> None:
    done(active, "UpdateTable", {**NAMED, "BillingMode": "PAY_PER_REQUEST"})
    assert statuses(active) == ("UPDATING", "UPDATING")
    assert described(active)["BillingModeSummary"] == {"BillingMode": "PAY_PER_REQUEST"}
    active.passes(DELAY_MS)
    assert statuses(active) == ("ACTIVE", "ACTIVE")
    assert described(active)["BillingModeSummary"] == {
        "BillingMode": "PAY_PER_REQUEST",
        "LastUpdateToPayPerRequestDateTime": active.coordinator.now_us / 1_000_000,
    }


def test_an_index_that_is_given_other_throughput_is_updating(active: Cluster) -> None:
    update = {"Update": {"IndexName": "byq", "ProvisionedThroughput": FEWER}}
    done(active, "UpdateTable", {**NAMED, "GlobalSecondaryIndexUpdates": [update]})
    assert statuses(active) == ("UPDATING", "UPDATING")
    assert throughput(described(active)["GlobalSecondaryIndexes"][0]) == (5, 0)
    active.passes(DELAY_MS)
    assert statuses(active) == ("ACTIVE", "ACTIVE")
    assert throughput(described(active)["GlobalSecondaryIndexes"][0]) == (4, 1)


def test_a_table_whose_index_goes_is_updating(active: Cluster) -> None:
    request = {**NAMED, "GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": "byq"}}]}
    done(active, "UpdateTable", request)
    assert statuses(active) == ("UPDATING", "DELETING")
    assert active.call("UpdateTable", request) == f"{IN_USE}updated: abc"
    active.passes(DELAY_MS)
    assert statuses(active) == ("ACTIVE", "DELETING")  # as long as that really takes


def test_an_index_that_is_added_is_creating_at_least_as_long_as_its_table_is_updating(active: Cluster) -> None:
    added = {**INDEX, "IndexName": "byr", "KeySchema": [{"AttributeName": "r", "KeyType": "HASH"}]}
    query = {
        **NAMED,
        "IndexName": "byr",
        "KeyConditionExpression": "r = :r",
        "ExpressionAttributeValues": {":r": {"S": "a"}},
    }

    def told() -> tuple[str, bool | None]:
        index = described(active)["GlobalSecondaryIndexes"][1]
        return index["IndexStatus"], index.get("Backfilling")

    done(
        active,
        "UpdateTable",
        {
            **NAMED,
            "AttributeDefinitions": [{"AttributeName": "r", "AttributeType": "S"}],
            "GlobalSecondaryIndexUpdates": [{"Create": added}],
        },
    )
    assert (statuses(active), told()) == (("UPDATING", "ACTIVE"), ("CREATING", False))
    active.catalog.moved("abc", "byr", "active")
    assert told() == ("CREATING", False)
    for operation, request in ("Query", query), ("Scan", {**NAMED, "IndexName": "byr"}):
        refused = active.call(operation, request)
        assert refused == "ValidationException | Cannot read from backfilling global secondary index: byr"
    active.passes(DELAY_MS)
    assert (statuses(active), told()) == (("ACTIVE", "ACTIVE"), ("ACTIVE", None))
    done(active, "Query", query)
    active.catalog.moved("abc", "byr", "creating")  # as if it took longer
    assert told() == ("CREATING", True)


def test_an_update_that_changes_nothing_begins_no_state(active: Cluster) -> None:
    done(active, "UpdateTable", {**NAMED, "DeletionProtectionEnabled": False})
    assert described(active)["TableStatus"] == "ACTIVE"


def test_a_deleted_table_is_deleting_and_its_items_are_kept_until_its_time_has_come(active: Cluster) -> None:
    done(active, "PutItem", {**NAMED, "Item": ITEM})
    answer = done(active, "DeleteTable", NAMED)["TableDescription"]
    assert answer["TableStatus"] == "DELETING"
    assert "GlobalSecondaryIndexes" not in answer
    active.passes(DELAY_MS - 1)
    assert described(active)["TableStatus"] == "DELETING"
    assert names(active) == ["abc"]
    assert len(active.kept) == 1
    active.passes(1)
    assert active.call("DescribeTable", NAMED) == GONE
    assert len(active.kept) == 0
    assert names(active) == []


def test_deleting_a_table_that_is_being_deleted_is_no_error_and_takes_no_longer(deleting: Cluster) -> None:
    deleting.passes(DELAY_MS - 1)
    assert done(deleting, "DeleteTable", NAMED)["TableDescription"]["TableStatus"] == "DELETING"
    deleting.passes(1)
    assert deleting.call("DeleteTable", NAMED) == GONE


def test_the_name_is_taken_until_the_table_is_gone(deleting: Cluster) -> None:
    deleting.passes(DELAY_MS - 1)
    assert deleting.call("CreateTable", TABLE) == f"{IN_USE}deleted: abc"
    deleting.passes(1)
    done(deleting, "CreateTable", TABLE)
    assert statuses(deleting) == ("CREATING", "CREATING")
    assert deleting.call("CreateTable", TABLE) == "ResourceInUseException | Table already exists: abc"


@pytest.mark.parametrize(("operation", "request_"), [*CHANGES, *ON_ITEMS])
def test_every_operation_drops_a_table_whose_time_has_come(
    deleting: Cluster, operation: str, request_: dict[str, Any]
) -> None:
    deleting.passes(DELAY_MS)
    assert "ResourceNotFoundException" in deleting.call(operation, request_)
    assert deleting.catalog.tables("dynamodb") == []


def test_listing_drops_tables_whose_time_has_come_and_names_those_that_cannot_be(
    deleting: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleting.passes(DELAY_MS)

    async def fail(table: Any, *, deadline: float) -> None:
        raise UnavailableError("no majority")

    with monkeypatch.context() as patch:
        patch.setattr(deleting.catalog, "drop_table", fail)
        assert names(deleting) == ["abc"]
        assert "ServiceUnavailable" in deleting.call("DescribeTable", NAMED)
    assert names(deleting) == []
    assert deleting.catalog.tables("dynamodb") == []


def test_a_protected_table_does_not_begin_to_go_even_if_it_is_protected_meanwhile(
    active: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = active.catalog.redefine_table
    at_once = active.another()

    async def late(table: Any, definition: bytes, *, deadline: float) -> Any:
        monkeypatch.setattr(active.catalog, "redefine_table", real)
        await served(at_once, "UpdateTable", b'{"TableName": "abc", "DeletionProtectionEnabled": true}')
        raise TableChangedError("abc")

    monkeypatch.setattr(active.catalog, "redefine_table", late)
    assert "protected against deletion" in active.call("DeleteTable", NAMED)
    assert described(active)["TableStatus"] == "ACTIVE"


@pytest.mark.parametrize("name", ["abc", ARN])
def test_a_node_that_knows_a_table_as_it_was_finds_the_one_made_anew(
    deleting: Cluster, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (gone,) = deleting.catalog.tables("dynamodb")
    deleting.passes(DELAY_MS)
    done(deleting, "CreateTable", TABLE)
    deleting.passes(DELAY_MS)
    real = deleting.catalog.table

    async def outdated(wire: str, name: str, *, deadline: float, is_newest: bool = False) -> Any:
        return await real(wire, name, deadline=deadline, is_newest=True) if is_newest else gone

    monkeypatch.setattr(deleting.catalog, "table", outdated)
    done(deleting, "PutItem", {"TableName": name, "Item": ITEM})


def test_a_node_without_a_delay_says_what_the_others_have_begun(slow: Cluster) -> None:
    slow.dynamodb = slow.another()
    assert statuses(slow) == ("CREATING", "CREATING")
    assert slow.call("DeleteTable", NAMED) == f"{IN_USE}created: abc"
    slow.passes(DELAY_MS)
    done(slow, "DeleteTable", NAMED)
    assert slow.call("DescribeTable", NAMED) == GONE


def test_time_to_live_is_enabling_and_disabling_and_changes_no_sooner_again(active: Cluster) -> None:
    def switch(is_on: bool) -> Any:
        asked = {"Enabled": is_on, "AttributeName": "t"}
        return active.call("UpdateTimeToLive", {**NAMED, "TimeToLiveSpecification": asked})

    def status() -> Any:
        return done(active, "DescribeTimeToLive", NAMED)["TimeToLiveDescription"]

    too_soon = "ValidationException | Time to live has been modified multiple times within a fixed interval"
    assert isinstance(switch(True), dict)
    assert status() == {"TimeToLiveStatus": "ENABLING", "AttributeName": "t"}
    assert switch(False) == too_soon
    active.passes(DELAY_MS)
    assert status() == {"TimeToLiveStatus": "ENABLED", "AttributeName": "t"}
    assert isinstance(switch(False), dict)
    assert status() == {"TimeToLiveStatus": "DISABLING", "AttributeName": "t"}
    assert switch(True) == too_soon
    active.passes(DELAY_MS)
    assert status() == {"TimeToLiveStatus": "DISABLED"}
    assert isinstance(switch(True), dict)


@given(
    status=st.sampled_from(["CREATING", "UPDATING", "DELETING"]), until_ms=st.integers(0, 99), now=st.integers(0, 99)
)
def test_the_state_follows_from_the_transition_and_the_time(status: Status, until_ms: int, now: int) -> None:
    transition = Transition(status, until_ms)
    state = lasting(transition, now)
    assert (state is None) == (now >= until_ms and status != "DELETING")
    assert is_over(transition, now) == (now >= until_ms and status == "DELETING")
    assert is_unserved(transition, now) == (state is not None and status != "UPDATING")
    assert lasting(None, now) is None
