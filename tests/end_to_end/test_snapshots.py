"""``merganser snapshot`` on real processes: what was acknowledged comes back, in a cluster of another size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

ITEMS = 300
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

    restored = command("snapshot", "restore", repository, "first", "--admin", target.addresses["admin"])
    assert restored.returncode == 0, restored.stdout + restored.stderr
    there = connect(target.dynamodb_url)
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

    refused = command("snapshot", "restore", repository, "first", "--admin", target.addresses["admin"])
    assert refused.returncode == 2
    assert "the cluster has tables called orders" in refused.stderr
    beside = command(
        *("snapshot", "restore", repository, "first", "--admin", target.addresses["admin"]),
        *("--table", "orders", "--prefix", "old-"),
    )
    assert beside.returncode == 0, beside.stderr
    assert orders_of(there, "old-orders") == EXPECTED_ORDERS
