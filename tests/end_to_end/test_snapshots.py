"""``merganser snapshot`` on real processes: what was acknowledged comes back, in a cluster of another size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merganser.node.local_cluster import LocalCluster, LocalNode
from merganser.storage.object_store import opened
from merganser.storage.repository import Repository, object_name

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

ITEMS = 120
DELETED = 20
Command = Callable[..., Any]


def make_led(client: DynamoDBClient) -> None:
    client.create_table(
        TableName="orders",
        AttributeDefinitions=[
            {"AttributeName": name, "AttributeType": "S"} for name in ("customer", "order", "state", "shop")
        ],
        KeySchema=[
            {"AttributeName": "customer", "KeyType": "HASH"},
            {"AttributeName": "order", "KeyType": "RANGE"},
        ],
        BillingMode="PAY_PER_REQUEST",
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-state",
                "KeySchema": [{"AttributeName": "state", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        LocalSecondaryIndexes=[
            {
                "IndexName": "by-shop",
                "KeySchema": [
                    {"AttributeName": "customer", "KeyType": "HASH"},
                    {"AttributeName": "shop", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
    )


def order(number: int) -> dict[str, Any]:
    return {
        "customer": {"S": f"customer-{number % 7}"},
        "order": {"S": f"{number:05}"},
        "state": {"S": "open" if number % 3 else "closed"},
        "shop": {"S": f"shop-{number % 5}"},
    }


def fill(client: DynamoDBClient, make_table: Callable[..., str]) -> str:
    """Write a table of each kind, with deletions; returns the name of the leaderless one."""
    make_led(client)
    table = make_table(client, is_leaderless=True)
    for number in range(ITEMS):
        client.put_item(TableName="orders", Item=order(number))
        client.put_item(TableName=table, Item={"pk": {"S": str(number)}, "value": {"S": f"value {number}"}})
    for number in range(DELETED):
        key = {name: order(number)[name] for name in ("customer", "order")}
        client.delete_item(TableName="orders", Key=key)
        client.delete_item(TableName=table, Key={"pk": {"S": str(number)}})
    client.transact_write_items(
        TransactItems=[{"Put": {"TableName": "orders", "Item": order(ITEMS + number)}} for number in range(5)]
    )
    return table


def orders_of(client: DynamoDBClient, table: str = "orders") -> list[dict[str, Any]]:
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return sorted((item for page in pages for item in page["Items"]), key=lambda item: str(item["order"]["S"]))


EXPECTED_ORDERS = [order(number) for number in range(DELETED, ITEMS + 5)]


@pytest.fixture
def other(tmp_path: Path) -> Iterator[LocalCluster]:
    """A cluster of another size, empty."""
    with LocalCluster(tmp_path / "other", nodes=2) as running:
        yield running


def test_a_cluster_of_another_size_has_what_was_acknowledged(
    cluster: LocalCluster,
    other: LocalCluster,
    tmp_path: Path,
    connect: Any,
    make_table: Any,
    read_back: Any,
    command: Command,
) -> None:
    client = connect(cluster.nodes[0].dynamodb_url)
    table = fill(client, make_table)
    repository, source, target = str(tmp_path / "backups"), cluster.nodes[1].addresses["admin"], other.nodes[0]

    created = command("snapshot", "create", repository, "--name", "first", "--admin", source)
    assert created.returncode == 0, created.stderr
    assert "snapshot first: 3 nodes" in created.stdout
    again = json.loads(
        command("snapshot", "create", repository, "--name", "second", "--admin", source, "--json").stdout
    )
    assert again["bytes_sent"] < again["bytes"] / 10, "files that are there are not sent again"

    verified = command("snapshot", "verify", repository, "first", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    found = {told["table"]: told for told in json.loads(verified.stdout)["tables"]}
    assert found["orders"]["rows"] == len(EXPECTED_ORDERS)
    assert found[table]["rows"] == ITEMS - DELETED

    there = connect(target.dynamodb_url)
    restore = ("snapshot", "restore", repository, "first", "--admin", target.addresses["admin"])
    tried = command(*restore, "--dry-run", "--json")
    assert tried.returncode == 0, tried.stdout + tried.stderr
    tables = {told["table"]: told["rows"] for told in json.loads(tried.stdout)["tables"]}
    assert tables == {"orders": len(EXPECTED_ORDERS), table: ITEMS - DELETED}
    assert tables_of(target) == [], "a dry run makes nothing, not even hidden tables"
    restored = command(*restore)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    assert sorted(there.list_tables()["TableNames"]) == sorted(["orders", table])
    assert orders_of(there) == EXPECTED_ORDERS
    assert read_back(there, table) == {str(number): f"value {number}" for number in range(DELETED, ITEMS)}
    closed = there.query(
        TableName="orders",
        IndexName="by-state",
        KeyConditionExpression="#s = :closed",
        ExpressionAttributeNames={"#s": "state"},
        ExpressionAttributeValues={":closed": {"S": "closed"}},
    )
    assert closed["Count"] == sum(item["state"]["S"] == "closed" for item in EXPECTED_ORDERS)
    shops = there.query(
        TableName="orders",
        IndexName="by-shop",
        ConsistentRead=True,
        KeyConditionExpression="customer = :one",
        ExpressionAttributeValues={":one": {"S": "customer-1"}},
    )
    assert shops["Count"] == sum(item["customer"]["S"] == "customer-1" for item in EXPECTED_ORDERS)
    there.put_item(TableName=table, Item={"pk": {"S": "30"}, "value": {"S": "later"}})
    assert read_back(there, table)["30"] == "later", "what is written afterwards is later than what was restored"

    for refused in (command(*restore), command(*restore, "--dry-run")):
        assert refused.returncode == 2
        assert "the cluster has tables called orders" in refused.stderr
    beside = command(*restore, "--table", "orders", "--prefix", "old-")
    assert beside.returncode == 0, beside.stderr
    assert orders_of(there, "old-orders") == EXPECTED_ORDERS


def made(command: Command, cluster: LocalCluster, repository: Path, name: str, *more: str, node: int = 0) -> Any:
    admin = cluster.nodes[node].addresses["admin"]
    return command("snapshot", "create", str(repository), "--name", name, "--admin", admin, *more)


def test_what_is_in_the_way_is_told_and_nothing_is_left_half_done(
    cluster: LocalCluster,
    other: LocalCluster,
    tmp_path: Path,
    connect: Any,
    make_table: Any,
    command: Command,
    eventually: Any,
) -> None:
    client, repository = connect(cluster.nodes[0].dynamodb_url), tmp_path / "backups"
    fill(client, make_table)
    bulk = make_table(client)

    cluster.nodes[2].kill()
    partial = json.loads(made(command, cluster, repository, "partial", "--json").stdout)
    assert (partial["nodes"], partial["absent"], partial["is_complete"]) == (2, 1, False)
    cluster.nodes[1].kill()
    refused = made(command, cluster, repository, "minority")
    assert refused.returncode == 2
    assert "too few replicas of these partitions are there" in refused.stderr
    assert "it does not answer" in refused.stderr
    for node in cluster.nodes[1:]:
        node.start()
        node.wait_until_ready()
    listed = json.loads(command("snapshot", "list", str(repository), "--json").stdout)
    assert [one["name"] for one in listed["snapshots"]] == ["partial"]

    stop = begun(client, bulk, cluster, repository, "stopped")
    stop.kill()  # while its files are sent
    stop.communicate()
    assert made(command, cluster, repository, "stopped").returncode == 0, "the same command goes on"
    assert command("snapshot", "delete", str(repository), "partial").returncode == 0

    during = begun(client, bulk, cluster, repository, "during")
    cluster.nodes[2].kill()
    cluster.nodes[2].start()
    output, _ = during.communicate(timeout=60)
    assert during.returncode == 0, output
    assert "3 nodes" in output, "a checkpoint outlives its node, and the command waits for that"

    manifest, _ = Repository(opened(str(repository), is_new_fine=False)).manifest("during")
    files = [file for copy in manifest.copies for file in copy.files]
    largest = repository / object_name(max(files, key=lambda file: file.size))
    whole = largest.read_bytes()
    largest.write_bytes(whole[:100] + bytes((whole[100] ^ 1,)) + whole[101:])
    verified = command("snapshot", "verify", str(repository), "during")
    assert verified.returncode == 1
    assert "is damaged" in verified.stdout
    aside = "damaged/" + str(largest.relative_to(repository / "files"))
    assert f"it is now {aside}, and the next snapshot sends that file again" in verified.stdout
    assert (repository / aside).is_file()
    target = other.nodes[0]
    restored = command("snapshot", "restore", str(repository), "during", "--admin", target.addresses["admin"])
    assert restored.returncode == 2
    assert "nothing was written: leave that node's checkpoint out with --without" in restored.stderr
    assert connect(target.dynamodb_url).list_tables()["TableNames"] == []
    number = restored.stderr.partition("--without ")[2][0]
    there = connect(target.dynamodb_url)
    restore = [
        *("snapshot", "restore", str(repository), "during", "--admin", target.addresses["admin"]),
        *("--without", number, "--scratch", str(tmp_path / "scratch")),
    ]
    stopped = subprocess.Popen([sys.executable, "-m", "merganser.cli", *restore, "--rate", "0.5"])
    eventually(lambda: any(name.startswith("restoring/") for name in tables_of(target)))
    stopped.kill()
    stopped.wait()
    assert there.list_tables()["TableNames"] == [], "nobody sees a table that is not whole"
    again = command(*restore)
    assert again.returncode == 0, again.stderr
    assert orders_of(there) == EXPECTED_ORDERS
    assert not any(name.startswith("restoring/") for name in tables_of(target))


def tables_of(node: LocalNode) -> list[str]:
    with urllib.request.urlopen(f"http://{node.addresses['admin']}/status", timeout=10) as response:
        return [table["name"] for table in json.load(response)["tables"]]


def begun(
    client: DynamoDBClient, bulk: str, cluster: LocalCluster, repository: Path, name: str
) -> subprocess.Popen[str]:
    """Begin to make a snapshot, slowly; returns when the first file of it has been sent."""
    admin = cluster.nodes[0].addresses["admin"]
    for number in range(60):  # what is not there yet
        client.put_item(TableName=bulk, Item={"pk": {"S": f"{name}-{number}"}, "data": {"B": os.urandom(20_000)}})
    before = set((repository / "files").rglob("*"))
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "merganser.cli", "snapshot", "create", str(repository), "--name", name),
            *("--admin", admin, "--rate", "1"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 30
    while set((repository / "files").rglob("*")) == before:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "nothing was sent in time"
        time.sleep(0.01)  # between two looks
    return process
