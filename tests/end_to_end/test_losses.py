"""Real nodes whose disks lost what they had synced, or all there was: they come back, refuse, recover, serve."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode
from merganser.storage.engine import Batch
from merganser.storage.keys import metadata_key
from merganser.storage.rocks import RocksEngine

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

Connect = Callable[..., "DynamoDBClient"]
Eventually = Callable[[Callable[[], object]], None]


def status(node: LocalNode) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{node.addresses['admin']}/status", timeout=5) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def health(node: LocalNode) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{node.addresses['admin']}/health", timeout=5) as answer:
            return answer.status, json.loads(answer.read())["state"]
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.loads(refusal.read())["state"]


def database(node: LocalNode) -> Path:
    (found,) = node.directory.rglob("rocksdb")
    return found


def cut_the_log(node: LocalNode) -> None:
    log = max(database(node).glob("*.log"))
    os.truncate(log, log.stat().st_size // 2)


def restart(node: LocalNode, *options: str) -> None:
    usual = node.arguments
    node.arguments = (*usual, *options)
    node.start()
    node.wait_until_ready()
    node.arguments = usual


def fill(client: DynamoDBClient, table: str, numbers: range) -> None:
    for number in numbers:
        client.put_item(TableName=table, Item={"pk": {"S": f"{number}"}, "value": {"S": "v" * 200}})


def test_a_node_whose_log_was_cut_says_so_and_others_serve_for_it(
    cluster: LocalCluster, connect: Connect, make_table: Callable[..., str], read_back: Any
) -> None:
    client = connect(cluster.nodes[0].dynamodb_url)
    table = make_table(client)
    fill(client, table, range(300))
    victim = cluster.nodes[1]
    victim.kill()
    cut_the_log(victim)
    restart(victim)
    assert health(victim)[1] in ("recovering", "serving")
    through_it = connect(victim.dynamodb_url)
    assert len(read_back(through_it, table)) == 300
    fill(through_it, table, range(300, 320))
    assert len(read_back(client, table)) == 320


def test_a_loss_that_the_operator_accepts_is_forgotten(
    cluster: LocalCluster, connect: Connect, make_table: Callable[..., str], eventually: Eventually
) -> None:
    client = connect(cluster.nodes[0].dynamodb_url)
    fill(client, make_table(client), range(300))
    victim = cluster.nodes[1]
    victim.kill()
    cut_the_log(victim)
    restart(victim, "--accept-loss")
    eventually(lambda: health(victim) == (200, "serving"))
    eventually(lambda: status(victim)["disk"]["has_rejoined"])
    victim.stop()
    restart(victim)
    assert status(victim)["disk"]["lost"] is None


def test_a_database_that_is_gone_is_built_again_under_the_same_identity(
    cluster: LocalCluster, connect: Connect, make_table: Callable[..., str], read_back: Any
) -> None:
    client = connect(cluster.nodes[0].dynamodb_url)
    table = make_table(client)
    fill(client, table, range(50))
    victim = cluster.nodes[0]  # the founder, even
    identity = status(victim)["node"]
    victim.kill()
    database(victim).rename(victim.directory / "elsewhere")
    victim.start()
    with pytest.raises(ConfigurationError, match="--rebuild"):
        victim.wait_until_ready()
    victim.stop()
    restart(victim, "--rebuild")
    assert status(victim)["node"] == identity
    assert status(victim)["disk"]["lost"] is None or health(victim) == (503, "recovering")
    assert len(read_back(connect(victim.dynamodb_url), table)) == 50


def test_rebuild_sets_a_database_aside(cluster: LocalCluster) -> None:
    victim = cluster.nodes[2]
    victim.stop()
    before = database(victim)
    restart(victim, "--rebuild")
    assert (before.parent / "rocksdb.aside-1" / "MERGANSER").exists()


@pytest.mark.parametrize("record", ["promise|", "generation|"])
def test_a_node_whose_promises_are_damaged_refuses_to_start_until_it_is_built_again(
    cluster: LocalCluster, connect: Connect, make_table: Callable[..., str], read_back: Any, record: str
) -> None:
    client = connect(cluster.nodes[0].dynamodb_url)
    table = make_table(client)
    fill(client, table, range(50))
    victim = cluster.nodes[1]
    victim.stop()
    engine = RocksEngine.open(database(victim))
    engine.commit(Batch().put(metadata_key(record) + bytes(5), b"damaged"))
    engine.close()
    victim.start()
    with pytest.raises(ConfigurationError, match=r"is damaged: start it once with --rebuild"):
        victim.wait_until_ready()
    victim.stop()
    restart(victim, "--rebuild")
    assert len(read_back(connect(victim.dynamodb_url), table)) == 50
