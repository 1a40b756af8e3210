"""What clients and operators see of a healthy cluster of three processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from merganser.node.local_cluster import LocalCluster

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes that all tests of this file share."""
    with LocalCluster(tmp_path_factory.mktemp("trio"), zones=("zone-1", "zone-2", "zone-3")) as running:
        yield running


@pytest.fixture
def aws(trio: LocalCluster, tmp_path: Path) -> Any:
    """Run the AWS CLI's dynamodb command against the first node; returns its JSON."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_PAGER": "",
    }

    def run(operation: str, **options: object) -> Any:
        given = [
            part
            for name, value in options.items()
            for part in (f"--{name.replace('_', '-')}", value if isinstance(value, str) else json.dumps(value))
        ]
        done = subprocess.run(
            [
                *(sys.executable, str(Path(sys.executable).with_name("aws")), "dynamodb", operation),
                *("--endpoint-url", trio.nodes[0].dynamodb_url, *given),
            ],
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout) if done.stdout else None

    return run


def test_ready_is_logged_with_the_address_of_every_door(trio: LocalCluster, events_of: Any) -> None:
    for node in trio.nodes:
        (ready,) = [event for event in events_of(node.log) if event["event"] == "ready"]
        assert ready["nodes"] == 3
        assert len(ready["cluster"]) == 16
        assert {ready[door].partition(":")[0] for door in ("dynamodb", "admin", "peers")} == {"127.0.0.1"}


def test_every_operation_on_an_item_works_through_every_node(trio: LocalCluster, connect: Any, make_table: Any) -> None:
    clients = [connect(node.dynamodb_url) for node in trio.nodes]
    table = make_table(clients[0])
    for i, client in enumerate(clients):
        after, last = clients[(i + 1) % 3], clients[(i + 2) % 3]
        key = {"pk": {"S": f"key-{i}"}}
        client.put_item(TableName=table, Item={**key, "value": {"S": "é"}, "raw": {"B": b"\x00\xff"}})
        found = after.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]
        assert found == {**key, "value": {"S": "é"}, "raw": {"B": b"\x00\xff"}}
        last.delete_item(TableName=table, Key=key)
        assert "Item" not in client.get_item(TableName=table, Key=key, ConsistentRead=True)
    for client in clients:
        assert table in client.list_tables()["TableNames"]
        assert client.describe_table(TableName=table)["Table"]["TableStatus"] == "ACTIVE"


def test_aws_cli_creates_writes_reads_and_drops(aws: Any) -> None:
    names = [{"AttributeName": "pk", "AttributeType": "S"}, {"AttributeName": "sk", "AttributeType": "N"}]
    schema = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
    items = [{"pk": {"S": "a"}, "sk": {"N": str(i)}, "value": {"S": f"é{i}"}} for i in (1, 2)]

    made = aws(
        "create-table",
        table_name="cli",
        attribute_definitions=names,
        key_schema=schema,
        billing_mode="PAY_PER_REQUEST",
    )
    assert made["TableDescription"]["TableName"] == "cli"
    assert made["TableDescription"]["KeySchema"] == schema
    for item in items:
        aws("put-item", table_name="cli", item=item)
    key = {"pk": {"S": "a"}, "sk": {"N": "2"}}
    assert aws("get-item", table_name="cli", key=key)["Item"] == items[1]
    found = aws(
        "query",
        table_name="cli",
        key_condition_expression="pk = :pk",
        expression_attribute_values={":pk": {"S": "a"}},
    )
    assert (found["Items"], found["Count"], found["ScannedCount"]) == (items, 2, 2)
    assert aws("scan", table_name="cli")["Items"] == items
    assert aws("delete-table", table_name="cli")["TableDescription"]["TableName"] == "cli"
    assert "cli" not in aws("list-tables")["TableNames"]


GARBAGE = [
    b"\x00" * 64,
    b"\xff" * 100_000,
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # how TLS begins
    (2**32 - 1).to_bytes(4, "big") + b"x" * 100,
]
SLOW = [b"P", b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{", b"\x00\x00"]


def test_garbage_and_slow_clients_on_every_port_disturb_nobody(
    trio: LocalCluster, connect: Any, make_table: Any, events_of: Any
) -> None:
    pids = [node.pid for node in trio.nodes]
    with ExitStack() as open_sockets:
        for node in trio.nodes:
            for address in node.addresses.values():
                host, _, port = address.rpartition(":")
                for sent in (*GARBAGE, *SLOW):
                    stranger = open_sockets.enter_context(socket.create_connection((host, int(port)), timeout=5))
                    stranger.sendall(sent)
        client = connect(trio.nodes[0].dynamodb_url)
        table = make_table(client)
        for i, node in enumerate(trio.nodes * 5):
            item = {"pk": {"S": str(i)}, "value": {"S": str(i)}}
            other = connect(node.dynamodb_url)
            other.put_item(TableName=table, Item=item)
            assert client.get_item(TableName=table, Key={"pk": item["pk"]}, ConsistentRead=True)["Item"] == item
    assert [node.pid for node in trio.nodes] == pids
    assert not [event for node in trio.nodes for event in events_of(node.log) if event["level"] == "error"]


def test_status_shows_every_node_on_80_columns(trio: LocalCluster, command: Any) -> None:
    shown = command("status", "--admin", trio.nodes[1].addresses["admin"])
    assert (shown.returncode, shown.stderr) == (0, "")
    of_the_nodes, _, of_membership = shown.stdout.partition("membership, as node 2 sees it")
    assert of_membership.count(" alive ") == 2
    assert "itself" in of_membership
    for number, node in enumerate(trio.nodes, start=1):
        (line,) = [line for line in of_the_nodes.splitlines() if line.startswith(f"{number} ")]
        assert line.split()[:7] == [
            *(str(number), "serving", f"zone-{number}"),
            *(node.addresses["dynamodb"], "2", "of", "2"),
        ]
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_status_as_json_has_every_node(trio: LocalCluster, command: Any) -> None:
    found = json.loads(command("status", "--json", "--admin", trio.nodes[2].addresses["admin"]).stdout)
    assert [node["state"] for node in found["nodes"]] == ["serving"] * 3
    assert [node["addresses"]["admin"] for node in found["nodes"]] == [n.addresses["admin"] for n in trio.nodes]


def test_status_tells_of_load_and_of_the_clock_beside_those_of_the_peers(trio: LocalCluster, command: Any) -> None:
    found = json.loads(command("status", "--json", "--admin", trio.nodes[0].addresses["admin"]).stdout)
    for node in found["nodes"]:
        assert node["load"]["requests_refused"] == 0
        assert node["clock"]["refusal"] is None
        assert len(node["clock"]["peers_s"]) == 2
        assert all(least <= 0 <= most for least, most in node["clock"]["peers_s"].values())


def test_ring_shows_an_owner_for_every_partition(trio: LocalCluster, command: Any) -> None:
    admin = trio.nodes[0].addresses["admin"]
    found = json.loads(command("ring", "--json", "--admin", admin).stdout)
    assert len(found["owners"]) == found["partitions"] == 256
    assert sorted(node["partitions_owned"] for node in found["nodes"]) == [85, 85, 86]
    shown = command("ring", "--admin", admin)
    assert (shown.returncode, shown.stderr) == (0, "")
    for node in trio.nodes:
        assert node.addresses["peers"] in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_admin_of_a_door_that_is_not_the_admin_port_is_refused(trio: LocalCluster, command: Any) -> None:
    for door in ("dynamodb", "peers"):
        shown = command("status", "--admin", trio.nodes[0].addresses[door])
        assert (shown.returncode, shown.stdout) == (2, "")
        assert shown.stderr.startswith("merganser: no Merganser node answers at")
        assert shown.stderr.count("\n") == 1
