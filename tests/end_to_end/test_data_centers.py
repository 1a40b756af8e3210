"""Six processes in two data centres: one of them goes dark, the other goes on, and nothing is where it may not be."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

SECRET = "only-in-europe"


@contextmanager
def at(client: DynamoDBClient, level: str) -> Iterator[DynamoDBClient]:
    """Have the requests of ``client`` name a level of consistency."""

    def add(request: Any, **_: object) -> None:
        request.headers["x-merganser-consistency"] = level

    client.meta.events.register("before-send.dynamodb", add, unique_id=level)
    try:
        yield client
    finally:
        client.meta.events.unregister("before-send.dynamodb", unique_id=level)


def answered(ask: Callable[[], object]) -> Callable[[], object]:
    """Return ``ask``, whose errors are no answer."""

    def tried() -> object:
        try:
            return ask()
        except (BotoCoreError, ClientError):
            return False

    return tried


def make(client: DynamoDBClient, name: str, **tags: str) -> None:
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": f"merganser:{key.replace('_', '-')}", "Value": value} for key, value in tags.items()],
    )


@pytest.mark.soak
def test_a_data_center_goes_dark_and_the_other_goes_on(
    tmp_path: Path, connect: Callable[..., DynamoDBClient], eventually: Callable[[Callable[[], object]], None]
) -> None:
    with LocalCluster(tmp_path, nodes=6, zones=("a", "b", "c"), data_centers=("eu", "us")) as cluster:
        eu, us = cluster.nodes[:3], cluster.nodes[3:]
        near, far = connect(eu[0].dynamodb_url), connect(us[0].dynamodb_url)
        make(near, "both", replication="leaderless", replicas="eu=3 us=3")
        make(near, "bound", replication="leaderless", replicas="eu=2")
        make(near, "led", replicas="eu=3")
        key = {"pk": {"S": "k"}}
        item = {**key, "v": {"S": SECRET}}

        eventually(answered(lambda: far.put_item(TableName="led", Item=item)))
        eventually(answered(lambda: far.put_item(TableName="bound", Item=item)))
        assert far.get_item(TableName="led", Key=key, ConsistentRead=True)["Item"] == item
        with pytest.raises(ClientError, match="has none there, but in 'eu'"), at(far, "LOCAL_QUORUM"):
            far.put_item(TableName="bound", Item=item)
        with at(near, "EACH_QUORUM"):
            near.put_item(TableName="both", Item={**key, "v": {"S": "everywhere"}})

        for node in us:
            node.kill(signal.SIGKILL)
        with at(near, "LOCAL_QUORUM"):
            eventually(answered(lambda: near.put_item(TableName="both", Item={**key, "v": {"S": "near"}})))
            assert near.get_item(TableName="both", Key=key)["Item"]["v"] == {"S": "near"}
        with pytest.raises(ClientError, match="us"), at(near, "EACH_QUORUM"):
            near.put_item(TableName="both", Item={**key, "v": {"S": "never"}})
        assert near.get_item(TableName="led", Key=key, ConsistentRead=True)["Item"] == item

        for node in us:
            node.start()
        with at(far, "LOCAL_QUORUM"):
            eventually(answered(lambda: far.get_item(TableName="both", Key=key)["Item"]["v"] == {"S": "near"}))
    found = {path.parts[len(tmp_path.parts)] for path in tmp_path.rglob("*") if path.is_file() and holds(path)}
    assert found
    assert found <= {"node-1", "node-2", "node-3"}


def holds(path: Path) -> bool:
    return path.suffix != ".jsonl" and SECRET.encode() in path.read_bytes()
