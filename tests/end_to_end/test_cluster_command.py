"""``merganser cluster start``, as a person at a terminal has it."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 30.0
COMMAND = [sys.executable, "-m", "merganser.cli"]
PORTS = ["--dynamodb-port", "0", "--peer-port", "0", "--admin-port", "0"]


class Terminal:
    """The command, and what it has printed so far."""

    def __init__(self, screen: Path, *arguments: str) -> None:
        self._screen = screen
        with screen.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments], stdout=output, stderr=output, env={**os.environ, "COLUMNS": "100"}
            )

    def wait_for(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            found = re.search(pattern, self._screen.read_text())
            if found:
                return found
            time.sleep(0.01)
        raise AssertionError(f"{pattern!r} did not come; the screen says\n{self._screen.read_text()}")

    def nodes(self) -> list[tuple[str, int]]:
        """DynamoDB endpoint and process id of each node."""
        self.wait_for(r"ctrl-C\s+stops\s+the\s+cluster")
        rows = re.findall(r"(http://\S+).*?(\d+) +│\n", self._screen.read_text())
        return [(endpoint, int(pid)) for endpoint, pid in rows]

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def open_terminal(*arguments: str) -> Terminal:
        opened.append(Terminal(tmp_path / f"screen-{len(opened)}", *arguments))
        return opened[-1]

    yield open_terminal
    for one in opened:
        with contextlib.suppress(ProcessLookupError):
            one.process.kill()
        one.process.wait()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_cluster_goes_on_without_a_killed_node_which_can_be_started_again(
    terminal: Callable[..., Terminal], tmp_path: Path, connect: Any, make_table: Any
) -> None:
    screen = terminal("cluster", "start", "--data", str(tmp_path / "data"), *PORTS)
    (first, _), (_, victim), _ = nodes = screen.nodes()
    client = connect(first)
    table = make_table(client)
    os.kill(victim, signal.SIGKILL)
    told = screen.wait_for(r"node 2 ended by signal 9; start it again with\n(merganser serve .*)\n")
    client.put_item(TableName=table, Item={"pk": {"S": "after"}})

    again = terminal(*shlex.split(told[1])[1:])
    ready = again.wait_for(r'"event":"ready".*"dynamodb":"([0-9.:]+)"')
    got = connect(f"http://{ready[1]}").get_item(TableName=table, Key={"pk": {"S": "after"}}, ConsistentRead=True)
    assert got["Item"] == {"pk": {"S": "after"}}

    assert again.end(signal.SIGINT) == 0
    assert screen.end(signal.SIGINT) == 0
    screen.wait_for("stopped")
    assert not any(is_running(pid) for _, pid in nodes)


def test_cluster_ends_when_every_node_has(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    screen = terminal("cluster", "start", "--nodes", "2", "--data", str(tmp_path / "data"), *PORTS)
    for _, pid in screen.nodes():
        os.kill(pid, signal.SIGTERM)
    assert screen.process.wait(TIMEOUT_S) == 2
    screen.wait_for("node 1 ended with exit status 0")
    screen.wait_for("merganser: every node has ended")
