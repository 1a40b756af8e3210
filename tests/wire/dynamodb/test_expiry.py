from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merganser.core.expiry import TIME_S_MAX
from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.expiry import expiring
from merganser.wire.dynamodb.items import encoded
from wire.dynamodb.fakes import Cluster

CONSTRAINT = "failed to satisfy constraint: "


def switch(cluster: Cluster, attribute: str, is_on: bool = True, table: str = "str") -> Any:
    asked = {"Enabled": is_on, "AttributeName": attribute}
    return cluster.call("UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": asked})


def described(cluster: Cluster) -> Any:
    return cluster.call("DescribeTimeToLive", {"TableName": "str"})["TimeToLiveDescription"]


def when(cluster: Cluster, item: dict[str, Any]) -> int | None:
    """When an item of the table "str" expires."""
    (table,) = [table for table in cluster.catalog.tables("dynamodb") if table.name == "str"]
    how = expiring(table)
    assert how is not None
    size = normalise(item)
    return how.expires_at(encoded(item, size))


def test_time_to_live_is_switched_on_and_off(cluster: Cluster) -> None:
    assert described(cluster) == {"TimeToLiveStatus": "DISABLED"}
    assert switch(cluster, "until") == {"TimeToLiveSpecification": {"Enabled": True, "AttributeName": "until"}}
    assert described(cluster) == {"TimeToLiveStatus": "ENABLED", "AttributeName": "until"}
    assert switch(cluster, "until", False) == {"TimeToLiveSpecification": {"Enabled": False, "AttributeName": "until"}}
    assert described(cluster) == {"TimeToLiveStatus": "DISABLED"}


def test_what_is_so_already_is_refused(cluster: Cluster) -> None:
    assert switch(cluster, "until", False) == "ValidationException | TimeToLive is already disabled"
    switch(cluster, "until")
    assert switch(cluster, "until") == "ValidationException | TimeToLive is already enabled"
    for is_on in True, False:
        assert switch(cluster, "other", is_on) == (
            "ValidationException | TimeToLive is active on a different AttributeName: current AttributeName is until"
        )
    assert described(cluster) == {"TimeToLiveStatus": "ENABLED", "AttributeName": "until"}


def test_each_beginning_has_another_identity(cluster: Cluster) -> None:
    identities = set()
    for _ in range(2):
        switch(cluster, "until")
        (table,) = [table for table in cluster.catalog.tables("dynamodb") if table.name == "str"]
        how = expiring(table)
        assert how is not None
        identities.add(how.identity)
        switch(cluster, "until", False)
    assert len(identities) == 2


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (
            {"TableName": "str"},
            f"ValidationException | 1 validation error detected: Value null at 'timeToLiveSpecification' {CONSTRAINT}"
            "Member must not be null",
        ),
        (
            {"TableName": "str", "TimeToLiveSpecification": {"AttributeName": ""}},
            "ValidationException | 2 validation errors detected: Value null at 'timeToLiveSpecification.enabled' "
            f"{CONSTRAINT}Member must not be null; Value '' at 'timeToLiveSpecification.attributeName' {CONSTRAINT}"
            "Member must have length greater than or equal to 1",
        ),
        (
            {"TableName": "nope", "TimeToLiveSpecification": {"Enabled": True, "AttributeName": "a"}},
            "ResourceNotFoundException | Requested resource not found: Table: nope not found",
        ),
        (
            {"TableName": "str", "TimeToLiveSpecification": {"Enabled": "maybe", "AttributeName": "a"}},
            "SerializationException | Unexpected token received from parser",
        ),
    ],
)
def test_wrong_time_to_live_is_refused(cluster: Cluster, request_: Any, answer: str) -> None:
    assert cluster.call("UpdateTimeToLive", request_) == answer


def test_leaderless_tables_have_none(leaderless: Cluster) -> None:
    assert "UpdateTimeToLive needs a table with leaders" in switch(leaderless, "until")
    assert described(leaderless) == {"TimeToLiveStatus": "DISABLED"}


@pytest.mark.parametrize(
    ("value", "at_s"),
    [
        ({"N": "1700000000"}, 1_700_000_000),
        ({"N": "1.7e9"}, 1_700_000_000),
        ({"N": "1700000000.9"}, 1_700_000_000),
        ({"N": "0"}, None),
        ({"N": "0.5"}, None),
        ({"N": "-1700000000"}, None),
        ({"N": "1700000000000"}, None),  # milliseconds, which is a year nobody lives to see
        ({"N": "1e100"}, None),
        ({"S": "1700000000"}, None),
        ({"NS": ["1700000000"]}, None),
        ({"M": {"until": {"N": "1700000000"}}}, None),
        (None, None),
    ],
)
def test_the_time_is_a_number_of_seconds(cluster: Cluster, value: Any, at_s: int | None) -> None:
    switch(cluster, "until")
    item = {"p": {"S": "a"}, "m": {"M": {"until": {"N": "1600000000"}}}}
    assert when(cluster, item if value is None else {**item, "until": value}) == at_s


@settings(max_examples=30)
@given(name=st.text(min_size=1, max_size=20).filter(lambda name: name != "p"), seconds=st.integers(1, TIME_S_MAX))
def test_the_attribute_may_have_any_name(name: str, seconds: int) -> None:
    cluster = Cluster()
    try:
        cluster.create("str")
        answer = switch(cluster, name)
        assert isinstance(answer, dict), answer
        item = {"p": {"S": "a"}, name: {"N": str(seconds)}}
        assert when(cluster, item) == seconds
    finally:
        cluster.close()
