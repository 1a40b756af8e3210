"""The life of one node process: how it starts, whom it lets in, and how it ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
from botocore.exceptions import ClientError

from merganser.node.local_cluster import LocalCluster, free_ports

pytestmark = pytest.mark.process

PORTS = ("--dynamodb-port", "0", "--peer-port", "0", "--admin-port", "0")


class Serve:
    """One ``merganser serve`` whose log the test reads."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "merganser.cli", "serve", *PORTS, *arguments],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self.events: list[dict[str, Any]] = []

    def until(self, name: str) -> dict[str, Any]:
        """Read the log up to an event."""
        assert self.process.stderr is not None
        while select.select([self.process.stderr], [], [], 20)[0]:
            self.events.append(orjson.loads(self.process.stderr.readline()))
            if self.events[-1]["event"] == name:
                return self.events[-1]
        pytest.fail(f"no {name!r} in time, only {self.events}")

    def end(self) -> tuple[int, list[str]]:
        """Wait for the end; returns the exit status and the events of the whole life."""
        assert self.process.stderr is not None
        status = self.process.wait(20)
        self.events += map(orjson.loads, self.process.stderr.read().splitlines())
        return status, [event["event"] for event in self.events]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def serve() -> Iterator[Callable[..., Serve]]:
    started: list[Serve] = []

    def start(*arguments: str, environment: dict[str, str] | None = None) -> Serve:
        started.append(Serve(*arguments, environment=environment or {}))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_node_with_status_0(serve: Any, tmp_path: Path, number: signal.Signals) -> None:
    node = serve("--data", str(tmp_path))
    node.until("ready")
    node.process.send_signal(number)
    assert node.end() == (0, ["ready", "stopping", "stopped"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_node_that_still_waits_for_its_seeds(serve: Any, number: signal.Signals) -> None:
    mine, absent = free_ports("127.0.0.1", 2)
    seeds = ("--seed", f"127.0.0.1:{mine}", "--seed", f"127.0.0.1:{absent}")
    node = serve("--ephemeral", "--peer-port", str(mine), *seeds)
    node.until("waiting for seed")
    node.process.send_signal(number)
    status, _ = node.end()
    assert status == 0


def test_node_ends_when_who_started_it_is_gone(serve: Any) -> None:
    node = serve("--ephemeral", "--stop-with-stdin")
    node.until("ready")
    node.process.stdin.write(b"anything")
    node.process.stdin.close()
    node.process.stdin = None
    assert node.end() == (0, ["ready", "stopping", "stopped"])


def test_standard_input_that_cannot_be_waited_for_is_refused() -> None:
    command = [sys.executable, "-m", "merganser.cli", "serve", "--ephemeral", "--stop-with-stdin"]
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert "--stop-with-stdin needs a pipe" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_standard_input_that_is_closed_is_refused_where_it_is_to_be_waited_for() -> None:
    command = [sys.executable, "-m", "merganser.cli", "serve", "--ephemeral", "--stop-with-stdin"]
    ended = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *command], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "merganser: --stop-with-stdin needs a pipe or a terminal as standard input, and it is"
    )
    assert ended.stderr.count("\n") == 1


def test_node_without_standard_input_and_error_serves_and_ends_with_status_0(tmp_path: Path) -> None:
    """What is opened next would get their numbers, and libuv closes no such file."""
    command = [sys.executable, "-m", "merganser.cli", "serve", "--data", str(tmp_path), *PORTS, "--print-endpoint"]
    shell = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *command]
    with subprocess.Popen(shell, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("http://127.0.0.1:"), "it serves"
            held = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 2)]
        finally:
            process.terminate()
        assert process.wait(20) == 0
    assert held == [os.devnull] * 2


def test_nodes_of_a_killed_parent_end(tmp_path: Path, eventually: Any) -> None:
    code = (
        "import pathlib, sys\nfrom merganser.node.local_cluster import LocalCluster\n"
        "cluster = LocalCluster(pathlib.Path(sys.argv[1]), nodes=2).start()\n"
        "print(*(node.pid for node in cluster.nodes), flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pids = parent.stdout.readline().split()
        assert len(pids) == 2
        parent.kill()
    logs = [tmp_path / f"node-{number}" / "node.log" for number in (1, 2)]
    eventually(lambda: all('"stopped"' in log.read_text() for log in logs))


def test_request_under_way_is_answered_before_the_end(
    cluster: LocalCluster, connect: Any, make_table: Any, eventually: Any
) -> None:
    """With the other two stopped a write waits for its quorum; the node is told to end meanwhile."""
    first, *others = cluster.nodes
    client, reader = connect(first.dynamodb_url), connect(first.dynamodb_url)
    table = make_table(client, is_leaderless=True)
    item = {"pk": {"S": "a"}, "value": {"S": "b"}}
    reader.meta.events.register("before-sign.dynamodb", _read_one_replica)
    for other in others:
        other.kill(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(client.put_item, TableName=table, Item=item)
            eventually(lambda: "Item" in reader.get_item(TableName=table, Key={"pk": item["pk"]}))
            assert not writing.done()
            first.kill(signal.SIGTERM)
            eventually(lambda: '"stopping"' in first.log.read_text())
            for other in others:
                other.kill(signal.SIGCONT)
            assert writing.result()["ResponseMetadata"]["HTTPStatusCode"] == 200
    finally:
        for other in others:
            other.kill(signal.SIGCONT)
    first.stop()
    assert first.exit_status == 0
    assert "error" not in first.log.read_text()


def _read_one_replica(request: Any, **_: object) -> None:
    request.headers["x-merganser-consistency"] = "ONE"


def test_ephemeral_node_forgets_everything_and_writes_nothing(
    serve: Any, connect: Any, make_table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        node = serve("--ephemeral")
        client = connect(f"http://{node.until('ready')['dynamodb']}")
        assert client.list_tables()["TableNames"] == []
        table = make_table(client)
        client.put_item(TableName=table, Item={"pk": {"S": "a"}})
        assert client.get_item(TableName=table, Key={"pk": {"S": "a"}})["Item"] == {"pk": {"S": "a"}}
        node.process.terminate()
        assert node.end()[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_node_starts_again_on_its_data_directory_as_the_same_node(
    serve: Any, connect: Any, make_table: Any, tmp_path: Path
) -> None:
    port = str(free_ports("127.0.0.1", 1)[0])
    first = serve("--data", str(tmp_path / "data"), "--peer-port", port, "--zone", "a")
    ready = first.until("ready")
    client = connect(f"http://{ready['dynamodb']}")
    table = make_table(client)
    client.put_item(TableName=table, Item={"pk": {"S": "a"}})
    first.process.kill()
    first.end()

    node = serve("--data", str(tmp_path / "data"), "--peer-port", port, "--zone", "b")
    other = node.until("the cluster has this node in another zone than --zone, and goes by that")
    assert (other["zone"], other["setting"]) == ("a", "b")
    assert "merganser zones 1=b" in other["advice"]
    again = node.until("ready")
    assert [again[name] for name in ("node", "cluster")] == [ready[name] for name in ("node", "cluster")]
    client = connect(f"http://{again['dynamodb']}")
    assert client.get_item(TableName=table, Key={"pk": {"S": "a"}}, ConsistentRead=True)["Item"]


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    code: str = caught.value.response["Error"]["Code"]
    return code


def test_with_access_keys_only_their_signatures_are_accepted(serve: Any, connect: Any) -> None:
    node = serve("--ephemeral", environment={"MERGANSER_ACCESS_KEYS": "key-1:first/+=,key-2:second"})
    url = f"http://{node.until('ready')['dynamodb']}"
    for key, secret in (("key-1", "first/+="), ("key-2", "second")):
        assert connect(url, access_key=key, secret=secret).list_tables()["TableNames"] == []
    assert error_of(connect(url, access_key="key-1", secret="second").list_tables) == "InvalidSignatureException"
    assert error_of(connect(url, access_key="key-3", secret="second").list_tables) == "UnrecognizedClientException"
    assert error_of(connect(url, is_signed=False).list_tables) == "MissingAuthenticationTokenException"
    assert "second" not in str(node.events)


def test_without_access_keys_any_signature_is_accepted_and_none_is_not(serve: Any, connect: Any) -> None:
    url = f"http://{serve('--ephemeral').until('ready')['dynamodb']}"
    assert connect(url, access_key="anyone", secret="anything").list_tables()["TableNames"] == []
    assert error_of(connect(url, is_signed=False).list_tables) == "MissingAuthenticationTokenException"


def test_no_auth_accepts_unsigned_requests(serve: Any, connect: Any) -> None:
    url = f"http://{serve('--ephemeral', '--no-auth').until('ready')['dynamodb']}"
    assert connect(url, is_signed=False).list_tables()["TableNames"] == []


def test_node_that_is_told_to_stop_again_and_again_still_ends_cleanly(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, nodes=1) as one:
        deadline = time.monotonic() + 30
        while one.nodes[0].pid is not None and time.monotonic() < deadline:
            one.nodes[0].kill(signal.SIGTERM)
        assert one.nodes[0].exit_status == 0
