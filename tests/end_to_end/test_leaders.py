"""Leaders that are real processes: killed, closed, stopped, and back again."""

from __future__ import annotations

import json
import signal
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from merganser.node.local_cluster import LocalCluster, LocalNode

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

PARTITIONS = 256
KEYS = [f"key-{i}" for i in range(30)]


def led(node: LocalNode) -> int:
    with urllib.request.urlopen(f"http://{node.addresses['admin']}/status", timeout=10) as response:
        found: dict[str, Any] = json.load(response)
    count: int = found["leadership"]["groups_led"]
    return count


def is_spread(nodes: list[LocalNode]) -> bool:
    counts = [led(node) for node in nodes]
    return sum(counts) == PARTITIONS and max(counts) - min(counts) <= 1


def put(client: DynamoDBClient, table: str, key: str, value: str) -> None:
    client.put_item(TableName=table, Item={"pk": {"S": key}, "value": {"S": value}})


def put_at_last(client: DynamoDBClient, table: str, key: str, value: str) -> bool:
    """Tell whether a write is acknowledged; whoever cannot know yet says so and is asked again."""
    try:
        put(client, table, key, value)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
            raise
        return False
    return True


def get(client: DynamoDBClient, table: str, key: str) -> str:
    found = client.get_item(TableName=table, Key={"pk": {"S": key}}, ConsistentRead=True)
    return found["Item"]["value"]["S"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_when_a_leader_is_gone_others_lead_its_groups_until_it_is_back_for_a_while(
    cluster: LocalCluster, connect: Any, make_table: Any, eventually: Any, number: signal.Signals
) -> None:
    *others, victim = cluster.nodes
    clients = [connect(node.dynamodb_url) for node in others]
    table = make_table(clients[0])
    for key in KEYS:
        put(clients[0], table, key, "before")
    eventually(lambda: is_spread(cluster.nodes))
    victim.kill(number)
    for client, value in zip(clients, ("one", "two"), strict=True):
        for key in KEYS:
            eventually(lambda: put_at_last(client, table, key, value))  # noqa: B023
            assert get(client, table, key) == value
    assert sum(map(led, others)) == PARTITIONS
    if number == signal.SIGSTOP:
        victim.kill(signal.SIGCONT)
    else:
        victim.start()
        victim.wait_until_ready()
    eventually(lambda: is_spread(cluster.nodes))
    back = connect(victim.dynamodb_url)
    assert {get(back, table, key) for key in KEYS} == {"two"}


def test_a_node_that_is_closed_leaves_its_groups_to_others_and_no_write_fails(
    cluster: LocalCluster, connect: Any, make_table: Any, eventually: Any
) -> None:
    *others, closed = cluster.nodes
    client = connect(others[0].dynamodb_url)
    table = make_table(client)
    eventually(lambda: is_spread(cluster.nodes))
    closed.kill(signal.SIGTERM)
    rounds = 0
    while closed.pid is not None or rounds < 2:
        for key in KEYS:
            put(client, table, key, "meanwhile")
        rounds += 1
    assert sum(map(led, others)) == PARTITIONS
