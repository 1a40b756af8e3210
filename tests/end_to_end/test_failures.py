"""What is promised when processes die, stop, come back, come back wrong, or run out of disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode, free_ports

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process


def put(client: DynamoDBClient, table: str, key: str) -> None:
    client.put_item(TableName=table, Item={"pk": {"S": key}, "value": {"S": f"value of {key}"}})


def get(client: DynamoDBClient, table: str, key: str) -> str | None:
    found = client.get_item(TableName=table, Key={"pk": {"S": key}}, ConsistentRead=True)
    return found["Item"]["value"]["S"] if "Item" in found else None


def expected(keys: list[str]) -> dict[str, str]:
    return {key: f"value of {key}" for key in keys}


class Writers:
    """Threads that put new items until stopped; keeps the keys whose put was acknowledged."""

    def __init__(self, clients: list[DynamoDBClient], table: str) -> None:
        self.acknowledged: list[str] = []
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(len(clients))
        self._writing = [self._pool.submit(self._write, i, client, table) for i, client in enumerate(clients)]

    def stop(self) -> list[str]:
        self._is_over.set()
        self._pool.shutdown()
        for writing in self._writing:
            writing.result()
        return self.acknowledged

    def _write(self, writer: int, client: DynamoDBClient, table: str) -> None:
        number = 0
        while not self._is_over.is_set():
            key = f"{writer}-{number}"
            number += 1
            try:
                put(client, table, key)
            except (ClientError, BotoCoreError):  # not acknowledged: nothing is promised
                self._is_over.wait(0.01)
            else:
                self.acknowledged.append(key)


def refusal_at_start(node: LocalNode) -> str:
    """Return what a node says that does not start: one line, after its events, and status 2."""
    logged_before = len(node.log.read_text().splitlines())
    node.start()
    with pytest.raises(ConfigurationError) as caught:
        node.wait_until_ready()
    node.stop()
    said = [line for line in node.log.read_text().splitlines()[logged_before:] if not line.startswith("{")]
    assert len(said) == 1
    assert said[0].startswith("merganser: ")
    assert node.exit_status == 2
    assert said[0].removeprefix("merganser: ") in str(caught.value)
    return said[0].removeprefix("merganser: ")


@pytest.mark.parametrize("victim", [0, 1])
def test_kill_9_under_writes_loses_nothing_that_was_acknowledged(
    cluster: LocalCluster, connect: Any, make_table: Any, read_back: Any, eventually: Any, victim: int
) -> None:
    clients = [connect(node.dynamodb_url) for node in cluster.nodes]
    table = make_table(clients[0])
    writers = Writers(clients, table)
    eventually(lambda: len(writers.acknowledged) > 100)
    cluster.nodes[victim].kill()
    others = [writer for writer in range(3) if writer != victim]
    before = len(writers.acknowledged)
    eventually(lambda: len(writers.acknowledged) > before + 100)
    cluster.nodes[victim].start()
    cluster.nodes[victim].wait_until_ready()
    before = len(writers.acknowledged)
    eventually(lambda: len(writers.acknowledged) > before + 50)
    acknowledged = writers.stop()

    assert {int(key.partition("-")[0]) for key in acknowledged} >= set(others)
    for node in cluster.nodes:
        found = read_back(connect(node.dynamodb_url), table)
        assert expected(acknowledged).items() <= found.items()


def test_stopped_node_holds_up_nobody_and_serves_when_it_goes_on(
    cluster: LocalCluster, connect: Any, make_table: Any, command: Any
) -> None:
    clients = [connect(node.dynamodb_url) for node in cluster.nodes]
    table = make_table(clients[0], is_leaderless=True)
    put(clients[0], table, "before")
    cluster.nodes[2].kill(signal.SIGSTOP)
    try:
        for client in clients[:2]:
            for i in range(5):
                put(client, table, f"meanwhile-{i}")
                assert get(client, table, f"meanwhile-{i}") == f"value of meanwhile-{i}"
            assert get(client, table, "before") == "value of before"
        shown = command("status", "--admin", cluster.nodes[0].addresses["admin"])
        assert [line.split()[1] for line in shown.stdout.splitlines()[2:5]] == ["serving", "serving", "unreachable"]
    finally:
        cluster.nodes[2].kill(signal.SIGCONT)
    put(clients[2], table, "after")
    for client in clients:
        for key in ("before", "meanwhile-4", "after"):
            assert get(client, table, key) == f"value of {key}"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whole_cluster_starts_again_with_its_data(
    cluster: LocalCluster, connect: Any, make_table: Any, read_back: Any, number: signal.Signals
) -> None:
    client = connect(cluster.nodes[0].dynamodb_url)
    table = make_table(client)
    keys = [str(i) for i in range(50)]
    for key in keys:
        put(client, table, key)
    for node in cluster.nodes:
        node.kill(number)
    cluster.stop()
    cluster.start()
    for node in cluster.nodes:
        assert read_back(connect(node.dynamodb_url), table) == expected(keys)


def test_restarted_node_is_where_it_was(cluster: LocalCluster, command: Any, eventually: Any) -> None:
    addresses = dict(cluster.nodes[1].addresses)
    cluster.nodes[1].kill()
    cluster.nodes[1].start()
    cluster.nodes[1].wait_until_ready()
    assert cluster.nodes[1].addresses == addresses
    admin = cluster.nodes[0].addresses["admin"]
    eventually(lambda: command("status", "--admin", admin).stdout.count("2 of 2") == 3)


def test_cluster_with_a_node_that_cannot_start_says_why_and_leaves_nothing_running(tmp_path: Path) -> None:
    port = free_ports("127.0.0.1", 1)[0]
    with socket.create_server(("127.0.0.1", port + 1)):
        cluster = LocalCluster(tmp_path, nodes=3, dynamodb_port=port)
        with pytest.raises(ConfigurationError, match=f"node-2 did not start: cannot listen on 127.0.0.1:{port + 1}"):
            cluster.start()
    assert [node.pid for node in cluster.nodes] == [None] * 3


def test_cluster_of_another_size_is_not_started_on_old_data(cluster: LocalCluster) -> None:
    directory = cluster.nodes[0].directory.parent
    with pytest.raises(ConfigurationError, match="holds a cluster of 3 nodes: start it with --nodes 3"):
        LocalCluster(directory, nodes=2)


def test_node_that_is_down_is_shown_and_the_ring_stays(cluster: LocalCluster, command: Any) -> None:
    cluster.nodes[1].kill()
    admin = cluster.nodes[0].addresses["admin"]
    shown = command("status", "--admin", admin)
    assert shown.returncode == 0
    assert [line.split()[1] for line in shown.stdout.splitlines()[2:5]] == ["serving", "unreachable", "serving"]
    states = [node["state"] for node in json.loads(command("status", "--json", "--admin", admin).stdout)["nodes"]]
    assert states == ["serving", "unreachable", "serving"]
    assert cluster.nodes[1].addresses["peers"] in command("ring", "--admin", admin).stdout


def test_second_node_on_a_directory_in_use_is_refused_by_process_id(cluster: LocalCluster, tmp_path: Path) -> None:
    data = str(cluster.nodes[0].directory / "data")
    second = LocalNode(tmp_path / "second", ["--data", data, "--peer-port", "0"])
    second.directory.mkdir()
    second.log.touch()
    assert f"is in use by process {cluster.nodes[0].pid}" in refusal_at_start(second)


def test_node_on_another_peer_port_than_its_cluster_knows_is_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.nodes[1].stop()
    data = str(cluster.nodes[1].directory / "data")
    moved = LocalNode(
        tmp_path / "moved", ["--data", data, "--peer-port", "0", "--dynamodb-port", "0", "--admin-port", "0"]
    )
    moved.directory.mkdir()
    moved.log.touch()
    message = refusal_at_start(moved)
    assert f"belongs to the node at {cluster.nodes[1].addresses['peers']}" in message
    assert "start it with the host and --peer-port it had" in message


@pytest.mark.parametrize("victim", [0, 2])
def test_node_with_a_wiped_directory_is_refused(cluster: LocalCluster, victim: int) -> None:
    wiped = cluster.nodes[victim]
    wiped.kill()
    shutil.rmtree(wiped.directory / "data")
    message = refusal_at_start(wiped)
    assert "does not know this node" in message
    assert "start the node with the data directory it had" in message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a file system of so many MiB; called again, it grows to that size."""
    place = tmp_path / "small" / "node-1" / "data"

    def mount(size_mib: int) -> Path:
        options = f"size={size_mib}m" + (",remount" if place.is_mount() else "")
        place.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
        return place

    yield mount
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


def fill(client: DynamoDBClient, table: str) -> tuple[list[str], str]:
    """Put items until one is refused; returns the keys of the others, and the refusal."""
    acknowledged: list[str] = []
    for number in range(1_000):
        key = str(number)
        try:
            client.put_item(TableName=table, Item={"pk": {"S": key}, "value": {"S": key * 50_000}})
        except ClientError as error:
            return acknowledged, str(error)
        acknowledged.append(key)
    pytest.fail("the disk did not fill")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_full_disk_refuses_writes_says_why_goes_on_reading_and_recovers(
    small_disk: Any,
    tmp_path: Path,
    connect: Any,
    make_table: Any,
    read_back: Any,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MERGANSER_DISK_RESERVE_MIB", "0")
    small_disk(8)
    with LocalCluster(tmp_path / "small", nodes=1) as one:
        client = connect(one.nodes[0].dynamodb_url)
        table = make_table(client, is_leaderless=True)  # a leader would step back, with nobody to take over
        acknowledged, refusal = fill(client, table)
        assert acknowledged
        assert "No space left on device" in refusal
        with pytest.raises(ClientError, match="No space left on device"):
            put(client, table, "more")

        for key in acknowledged:
            assert get(client, table, key) == key * 50_000
        shown = command("status", "--admin", one.nodes[0].addresses["admin"])
        assert shown.stdout.splitlines()[2].split()[1] == "read-only"
        assert "No space left on device" in shown.stdout
        logged = [json.loads(line) for line in one.nodes[0].log.read_text().splitlines()]
        (told,) = [line for line in logged if line["event"] == "storage failed"]
        assert "No space left on device" in told["reason"]
        with pytest.raises(urllib.error.HTTPError) as ill:
            urllib.request.urlopen(f"http://{one.nodes[0].addresses['admin']}/health", timeout=5)
        with ill.value as health:
            assert (health.status, health.read()) == (503, b'{"state":"read-only"}\n')
        one.nodes[0].stop()
        assert one.nodes[0].exit_status == 0

        small_disk(64)
        one.start()
        client = connect(one.nodes[0].dynamodb_url)
        assert {key: key * 50_000 for key in acknowledged}.items() <= read_back(client, table).items()
        put(client, table, "again")
        assert get(client, table, "again") == "value of again"


def test_node_that_missed_a_table_made_anew_serves_the_new_one_as_soon_as_it_is_ready(
    tmp_path: Path, connect: Any, make_table: Any
) -> None:
    with LocalCluster(tmp_path) as cluster:
        first, _, away = cluster.nodes
        client = connect(first.dynamodb_url)
        table = make_table(client)
        put(client, table, "old")
        away.kill()
        client.delete_table(TableName=table)
        client.create_table(
            TableName=table,
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        away.start()
        away.wait_until_ready()
        late = connect(away.dynamodb_url)
        assert "Item" not in late.get_item(TableName=table, Key={"pk": {"S": "old"}})
        put(late, table, "new")
        assert get(client, table, "new") == "value of new"
