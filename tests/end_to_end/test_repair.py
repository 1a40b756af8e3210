"""``merganser repair`` on real processes: what rotted on a disk is found, healed, and told."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merganser.model.ids import TableId
from merganser.node.local_cluster import LocalCluster, LocalNode
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.rocks import RocksEngine

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

ITEMS = 50
FIRST_TABLE = TableId(1)


def put_items(client: DynamoDBClient, table: str) -> None:
    for i in range(ITEMS):
        client.put_item(TableName=table, Item={"pk": {"S": str(i)}, "value": {"S": f"value {i}"}})


def database(node: LocalNode) -> Path:
    (mark,) = node.directory.rglob("MERGANSER")
    return mark.parent


def rot(node: LocalNode, rows: int) -> list[bytes]:
    """Damage some rows of a node that is down, as memory or a disk that lies would; return their keys."""
    engine = RocksEngine.open(database(node))
    found = list(engine.scan(*keys.table_range(FIRST_TABLE)))[:rows]
    batch = Batch()
    for key, stored in found:
        batch.put(key, stored[:-1] + bytes((stored[-1] ^ 1,)))
    engine.commit(batch)
    engine._database.flush_wal(True)
    engine.close()
    return [key for key, _ in found]


def rows_of(node: LocalNode) -> dict[bytes, bytes]:
    """Return what a node that is down holds."""
    engine = RocksEngine.open(database(node))
    found = dict(engine.scan(*keys.table_range(FIRST_TABLE)))
    engine.close()
    return found


def status_of(node: LocalNode) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{node.addresses['admin']}/status", timeout=10) as response:
        status: dict[str, Any] = json.load(response)
        return status


def test_what_rotted_on_a_disk_is_found_healed_and_byte_for_byte_what_the_others_hold(
    cluster: LocalCluster, connect: Any, make_table: Any, eventually: Any, command: Any
) -> None:
    victim, asked, other = cluster.nodes
    client = connect(asked.dynamodb_url)
    table = make_table(client, is_leaderless=True)
    put_items(client, table)
    victim.stop()
    damaged = rot(victim, 3)
    victim.start()
    victim.wait_until_ready()
    eventually(lambda: all(peer["connected"] for peer in status_of(asked)["peers"].values()))

    only_counted = command("repair", table, "--dry-run", "--admin", asked.addresses["admin"])
    assert only_counted.returncode == 0, only_counted.stderr
    assert "dry run: nothing was put in place" in only_counted.stdout
    assert only_counted.stdout.splitlines()[1].split() == [table, "256", "256", "0", "0", "3", "0", "0"]

    done = command("repair", table, "--admin", asked.addresses["admin"])
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[1].split() == [table, "256", "256", "0", "0", "3", "3", "0"]
    assert status_of(victim)["damage"]["healed"] == 3
    assert status_of(victim)["damage"]["waiting"] == 0
    assert '"event":"damage on the disk"' in victim.log.read_text()
    for node in (victim, other):
        node.stop()
    assert rows_of(victim) == rows_of(other)
    assert set(damaged) <= set(rows_of(victim))


def test_a_repair_with_a_node_away_says_so_and_ends_with_1(
    cluster: LocalCluster, connect: Any, make_table: Any, command: Any
) -> None:
    away, asked, _ = cluster.nodes
    table = make_table(connect(asked.dynamodb_url))
    away.kill()
    done = command("repair", "--partition", "7", "--json", "--admin", asked.addresses["admin"])
    assert done.returncode == 1
    told = json.loads(done.stdout)
    (one,) = told["done"]
    assert (one["table"], one["partition"], one["compared"]) == (table, 7, False)
    assert any("is away" in problem for problem in one["problems"])


def test_mistakes_are_told(cluster: LocalCluster, connect: Any, make_table: Any, command: Any) -> None:
    node = cluster.nodes[0]
    table = make_table(connect(node.dynamodb_url))
    admin = node.addresses["admin"]
    for arguments, told in (
        (("nothing", "--admin", admin), f"no table is called 'nothing'; there are {table}"),
        (("--partition", "256", "--admin", admin), "--partition must be 0 to 255, not 256"),
        (("--admin", "127.0.0.1:1"), "no Merganser node answers at 127.0.0.1:1"),
    ):
        ended = command("repair", *arguments)
        assert ended.returncode == 2
        assert told in ended.stderr


def test_a_page_in_a_browser_cannot_have_anything_repaired(
    cluster: LocalCluster, connect: Any, make_table: Any
) -> None:
    node = cluster.nodes[0]
    table = make_table(connect(node.dynamodb_url))
    url = f"http://{node.addresses['admin']}/repair?table={table}&partition=0"
    for headers in (
        {},  # a form
        {"content-type": "text/plain", "origin": "http://evil.example"},
        {"x-merganser-admin": "1", "origin": f"http://{node.addresses['admin']}"},  # a name that now points here
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url, method="POST", headers=headers), timeout=10)
        assert refused.value.code == 403
        refused.value.close()
