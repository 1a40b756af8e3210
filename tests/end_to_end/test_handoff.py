"""Hints between real processes: kept, shown, kept through a kill -9, handed over; and levels as clients write them."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from merganser.node.local_cluster import LocalCluster, LocalNode

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

ITEMS = 200


def at(client: DynamoDBClient, level: str) -> None:
    """Have every request of ``client`` ask for ``level``."""

    def say(request: Any, **_: object) -> None:
        request.headers["x-merganser-consistency"] = level

    client.meta.events.register("before-sign.dynamodb", say)


def put(client: DynamoDBClient, table: str, key: str) -> None:
    client.put_item(TableName=table, Item={"pk": {"S": key}})


def is_there(client: DynamoDBClient, table: str, key: str) -> bool:
    return "Item" in client.get_item(TableName=table, Key={"pk": {"S": key}})


def hints_of(node: LocalNode) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{node.addresses['admin']}/status", timeout=10) as response:
        hints: dict[str, Any] = json.load(response)["hints"]
        return hints


def stored_on(node: LocalNode) -> int:
    return sum(stored["hints"] for stored in hints_of(node)["stored"])


def test_what_a_dead_node_missed_is_handed_over_though_its_keeper_was_killed_too(
    cluster: LocalCluster, connect: Any, make_table: Any, eventually: Any, command: Any
) -> None:
    keeper, _, away = cluster.nodes
    client = connect(keeper.dynamodb_url)
    table = make_table(client, is_leaderless=True)
    away.kill()
    for i in range(ITEMS):
        put(client, table, str(i))
    eventually(lambda: stored_on(keeper) == ITEMS)
    said = command("status", "--admin", keeper.addresses["admin"]).stdout
    assert f"keeps {ITEMS} hints for node" in said

    keeper.kill()
    keeper.start()
    keeper.wait_until_ready()
    eventually(lambda: stored_on(keeper) == ITEMS)

    away.start()
    away.wait_until_ready()
    eventually(lambda: stored_on(keeper) == 0)
    assert hints_of(keeper)["delivered"] == ITEMS
    itself = connect(away.dynamodb_url)
    at(itself, "ONE")
    assert all(is_there(itself, table, str(i)) for i in range(ITEMS))


def test_numbers_and_any_in_the_header_decide(
    cluster: LocalCluster, connect: Any, make_table: Any, eventually: Any
) -> None:
    alone, *others = cluster.nodes
    client = connect(alone.dynamodb_url)
    table = make_table(client, is_leaderless=True)
    for node in others:
        node.kill()
    eventually(lambda: not any(_peers(alone)))
    sloppy, lenient, strict = (connect(alone.dynamodb_url) for _ in range(3))
    at(sloppy, "w=1,r=1")
    at(lenient, "ANY")
    at(strict, "w=1,pw=2,r=1,pr=2")
    put(sloppy, table, "sloppy")
    put(lenient, table, "lenient")
    assert is_there(sloppy, table, "sloppy")
    with pytest.raises(ClientError, match="w=1,pw=2 needs 2 of 3 replicas and 1 can be reached"):
        put(strict, table, "strict")
    with pytest.raises(ClientError, match="r=1,pr=2 needs 2 of 3 replicas and 1 can be reached"):
        is_there(strict, table, "sloppy")
    with pytest.raises(ClientError, match=r"ValidationException.*ANY is for writes"):
        is_there(lenient, table, "lenient")


def _peers(node: LocalNode) -> list[bool]:
    with urllib.request.urlopen(f"http://{node.addresses['admin']}/status", timeout=10) as response:
        return [peer["connected"] for peer in json.load(response)["peers"].values()]
