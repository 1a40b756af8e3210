"""What boto3's waiters see of tables that take their time, on a real cluster, and when the node that was asked dies."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

DELAY_MS = 400
OFTEN: Any = {"Delay": 0.05, "MaxAttempts": 400}
ITEM: dict[str, Any] = {"pk": {"S": "key"}}


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes with a table delay, which all tests of this file share."""
    arguments = ("--table-delay-ms", str(DELAY_MS))
    with LocalCluster(tmp_path_factory.mktemp("slow"), arguments=arguments) as running:
        yield running


def wait(client: DynamoDBClient, name: str, *, exists: bool) -> None:
    if exists:
        client.get_waiter("table_exists").wait(TableName=name, WaiterConfig=OFTEN)
    else:
        client.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig=OFTEN)


def test_waiters_see_a_table_come_change_and_go_through_any_node(
    slow: LocalCluster,
    connect: Callable[..., DynamoDBClient],
    make_table: Callable[..., str],
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    one, two, three = (connect(node.dynamodb_url) for node in slow.nodes)
    name = make_table(one)
    for client in (one, two, three):
        wait(client, name, exists=True)
        client.put_item(TableName=name, Item=ITEM)
    units: Any = {"ReadCapacityUnits": 7, "WriteCapacityUnits": 8}
    answer = two.update_table(TableName=name, BillingMode="PROVISIONED", ProvisionedThroughput=units)
    assert answer["TableDescription"]["TableStatus"] == "UPDATING"
    for client in (one, two, three):
        client.put_item(TableName=name, Item=ITEM)
        eventually(lambda client=client: client.describe_table(TableName=name)["Table"]["TableStatus"] == "ACTIVE")  # type: ignore[misc]
        wait(client, name, exists=True)
    assert three.delete_table(TableName=name)["TableDescription"]["TableStatus"] == "DELETING"
    for client in (one, two, three):
        wait(client, name, exists=False)
        assert name not in client.list_tables()["TableNames"]


def test_a_table_goes_though_the_node_that_was_asked_is_killed_and_does_not_come_back_with_it(
    slow: LocalCluster,
    connect: Callable[..., DynamoDBClient],
    make_table: Callable[..., str],
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    asked, others = slow.nodes[0], [connect(node.dynamodb_url) for node in slow.nodes[1:]]
    client = connect(asked.dynamodb_url)
    name = make_table(client)
    wait(client, name, exists=True)
    client.put_item(TableName=name, Item=ITEM)
    client.delete_table(TableName=name)
    asked.kill(signal.SIGKILL)
    for other in others:
        wait(other, name, exists=False)
    asked.start()
    asked.wait_until_ready()
    again = connect(asked.dynamodb_url)
    eventually(lambda: name not in again.list_tables()["TableNames"])
    for other in (again, *others):
        with pytest.raises(other.exceptions.ResourceNotFoundException):
            other.describe_table(TableName=name)
