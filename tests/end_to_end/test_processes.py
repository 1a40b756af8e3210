"""Several node processes behind one port: clients do not notice how many, nor that one of them was killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import orjson
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from merganser.node.local_cluster import LocalNode, free_ports

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process


def row_of_free_ports(length: int) -> int:
    """Return the first of some ports in a row that nobody listens on."""
    for first in free_ports("127.0.0.1", 100):
        with contextlib.ExitStack() as bound, contextlib.suppress(OSError):
            for port in range(first, first + length):
                bound.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    pytest.fail("there is no row of free ports")


class Processes(LocalNode):
    """Two processes, whose log the test reads."""

    def __init__(self, directory: Path) -> None:
        first = row_of_free_ports(5)
        ports = ("--dynamodb-port", str(first), "--peer-port", str(first + 1), "--admin-port", str(first + 3))
        self.settings = directory / "merganser.toml"
        directory.mkdir(parents=True)
        self.settings.touch()
        where = ("--data", str(directory / "data"), "--config", str(self.settings))
        super().__init__(directory, [*where, "--processes", "2", *ports])

    def events(self) -> list[dict[str, object]]:
        """The log so far."""
        lines = self.log.read_bytes()[self._log_offset :].splitlines()
        return [orjson.loads(line) for line in lines if line.startswith(b"{")]

    def served(self) -> list[dict[str, object]]:
        """What the processes said when they were ready, in the order in which they were."""
        return [event for event in self.events() if event["event"] == "ready"]

    def all_serve(self) -> bool:
        return any(event["event"] == "all processes serve" for event in self.events())

    def children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]


@pytest.fixture
def processes(tmp_path: Path, eventually: Callable[[Callable[[], object]], None]) -> Iterator[Processes]:
    node = Processes(tmp_path / "node")
    try:
        node.start()
        node.wait_until_ready()
        eventually(node.all_serve)
        yield node
    finally:
        node.stop()


class Things:
    """A table."""

    def __init__(self, client: DynamoDBClient, name: str) -> None:
        self._client = client
        self._name = name

    def put(self, number: int) -> int | None:
        """Write an item; returns its number if that was acknowledged."""
        try:
            self._client.put_item(TableName=self._name, Item={"pk": {"S": str(number)}})
        except (ClientError, BotoCoreError):
            return None
        return number

    def has(self, number: int) -> bool:
        """Tell whether an item is there."""
        key = {"pk": {"S": str(number)}}
        return "Item" in self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True)


@pytest.fixture
def things(processes: Processes, connect: Callable[..., DynamoDBClient], make_table: Callable[..., str]) -> Things:
    client = connect(processes.dynamodb_url)
    return Things(client, make_table(client))


def test_two_processes_are_one_machine_of_one_cluster_behind_one_port(processes: Processes, things: Things) -> None:
    ready = processes.served()
    assert {event["process"] for event in ready} == {1, 2}
    assert len({event["dynamodb"] for event in ready}) == 1
    assert len({event["admin"] for event in ready}) == 2
    with urlopen(f"http://{ready[0]['admin']}/status", timeout=20) as answer:
        assert [table["n"] for table in orjson.loads(answer.read())["tables"]] == [3]  # one each once there are three
    with urlopen(f"http://{ready[0]['admin']}/ring", timeout=20) as answer:
        nodes = orjson.loads(answer.read())["nodes"]
    assert len({node["machine"] for node in nodes}) == 1
    assert [node["partitions_owned"] for node in nodes] == [128, 128]
    with ThreadPoolExecutor(8) as pool:
        assert None not in pool.map(lambda number: things.put(number), range(64))
    assert all(things.has(number) for number in range(64))


def test_connections_come_to_both_processes(processes: Processes) -> None:
    port = int(processes.dynamodb_url.rpartition(":")[2])
    met: set[bytes] = set()
    for _ in range(200):  # that all come to one has a chance of 2 to the power of -199
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        met.add(next(line for line in answer.splitlines() if line.startswith(b"x-amzn-requestid"))[:40])
        if len(met) > 1:
            return
    pytest.fail("all connections came to one process")


def test_process_that_is_killed_comes_back_with_what_was_acknowledged(
    processes: Processes, things: Things, eventually: Callable[[Callable[[], object]], None]
) -> None:
    victim = processes.children()[0]
    with ThreadPoolExecutor(8) as pool:
        puts = [pool.submit(things.put, number) for number in range(400)]
        puts[50].result()
        os.kill(victim, signal.SIGKILL)
        acked = [number for number in (future.result() for future in puts) if number is not None]
    eventually(lambda: len(processes.served()) == 3)
    eventually(lambda: things.put(1000) == 1000)
    assert len(acked) > 50
    assert all(things.has(number) for number in acked)
    assert victim not in processes.children()


def test_processes_end_with_whoever_started_them(
    processes: Processes, eventually: Callable[[Callable[[], object]], None]
) -> None:
    children = processes.children()
    processes.kill()
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_clean_stop_and_start_keep_everything(
    processes: Processes, things: Things, eventually: Callable[[Callable[[], object]], None]
) -> None:
    assert things.put(1) == 1
    processes.kill(signal.SIGTERM)
    assert processes.has_ended(20)
    assert processes.exit_status == 0
    processes.start()
    eventually(processes.all_serve)
    assert things.has(1)


def test_port_that_somebody_listens_on_is_refused_although_it_could_be_shared(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "merganser.cli", "serve", "--data", str(tmp_path / "data"), "--port", port]
        ended = subprocess.run(
            [*command, "--processes", "2"], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )
    assert ended.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port} (Address already in use)".encode() in ended.stderr
    assert not (tmp_path / "data").exists()


@pytest.fixture
def other(processes: Processes, tmp_path: Path) -> Iterator[LocalNode]:
    """A node on another machine that has joined, and has its share."""
    peer = str(processes.served()[0]["peers"])
    node = LocalNode(tmp_path / "other", ["--data", str(tmp_path / "other-data"), "--join", peer, *_FREE])
    try:
        node.start()
        node.wait_until_ready()
        yield node
    finally:
        node.stop()


_FREE = ("--dynamodb-port", "0", "--peer-port", "0", "--admin-port", "0")
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.soak
@pytest.mark.parametrize("is_together", [True, False])
def test_processes_of_a_machine_leave_one_by_one_and_together(
    *,
    processes: Processes,
    things: Things,
    other: LocalNode,
    command: Command,
    connect: Callable[..., DynamoDBClient],
    eventually: Callable[[Callable[[], object]], None],
    is_together: bool,
) -> None:
    admins = {int(str(event["process"])): str(event["admin"]) for event in processes.served()}
    assert [things.put(number) for number in range(50)] == list(range(50))

    def run(*arguments: str) -> None:
        done = command(*arguments, "--yes", "--force", "--admin", other.addresses["admin"])
        assert done.returncode == 0, done.stdout + done.stderr

    run("join", other.addresses["admin"])
    if is_together:
        run("leave", admins[1], admins[2])
    else:
        run("leave", admins[1])
        eventually(lambda: any(event["event"] == "a process has left its cluster" for event in processes.events()))
        assert all(things.has(number) for number in range(50))
        processes.kill(signal.SIGTERM)
        assert processes.has_ended(20)
        processes.start()
        eventually(processes.all_serve)
        assert [event["process"] for event in processes.served()] == [2]
        assert all(things.has(number) for number in range(50))
        run("leave", admins[2])
    assert processes.has_ended(20)
    assert processes.exit_status == 0
    client = connect(other.dynamodb_url)
    (table,) = client.list_tables()["TableNames"]
    assert all(Things(client, table).has(number) for number in range(50))
    processes.start()
    assert processes.has_ended(20)
    assert processes.exit_status == 2
    assert b"have left their cluster" in processes.log.read_bytes()


def test_a_signal_reaches_all_processes(
    processes: Processes, eventually: Callable[[Callable[[], object]], None]
) -> None:
    assert processes.pid is not None
    processes.settings.write_text("connections_max = 77\n")
    os.kill(processes.pid, signal.SIGHUP)

    def heeded() -> set[object]:
        events = [event for event in processes.events() if event["event"] == "settings were read again"]
        return {(event["process"], str(event["changed"])) for event in events}

    eventually(lambda: heeded() == {(number, "{'connections_max': '77'}") for number in (1, 2)})
    os.kill(processes.children()[0], signal.SIGKILL)
    eventually(lambda: len(processes.served()) == 3)
