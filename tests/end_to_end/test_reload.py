"""Nodes read their settings again while they serve: by a signal, or by a command; all that have changed, or none."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from merganser.node.local_cluster import LocalNode

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

SETTINGS = """\
zone = "a"
connections_max = 300
[access_keys]
first = "secret"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "merganser.toml"
    path.write_text(SETTINGS)
    return path


@pytest.fixture
def node(tmp_path: Path, file: Path) -> Iterator[LocalNode]:
    ports = ("--dynamodb-port", "0")
    serving = LocalNode(tmp_path / "node", ["--data", str(tmp_path / "data"), "--config", str(file), *ports])
    try:
        serving.start()
        serving.wait_until_ready()
        yield serving
    finally:
        serving.stop()


def is_let_in(connect: Callable[..., DynamoDBClient], node: LocalNode, key: str) -> bool:
    client = connect(node.dynamodb_url, access_key=key, secret="secret")
    try:
        client.list_tables()
    except client.exceptions.ClientError as error:
        return "UnrecognizedClientException" not in str(error)
    return True


def told(node: LocalNode, event: str) -> list[dict[str, object]]:
    lines = [orjson.loads(line) for line in node.log.read_bytes().splitlines() if line.startswith(b"{")]
    return [line for line in lines if line["event"] == event]


def test_keys_and_bounds_change_by_a_signal_and_what_needs_a_restart_changes_nothing(
    node: LocalNode,
    file: Path,
    connect: Callable[..., DynamoDBClient],
    command: Callable[..., subprocess.CompletedProcess[str]],
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    assert (is_let_in(connect, node, "first"), is_let_in(connect, node, "second")) == (True, False)
    file.write_text(SETTINGS.replace("first", "second").replace("300", "301"))
    assert node.pid is not None
    os.kill(node.pid, signal.SIGHUP)
    eventually(lambda: told(node, "settings were read again"))
    assert told(node, "settings were read again")[0]["changed"] == {"access_keys": "second", "connections_max": "301"}
    assert (is_let_in(connect, node, "first"), is_let_in(connect, node, "second")) == (False, True)

    file.write_text(SETTINGS.replace("first", "third").replace('"a"', '"b"'))
    refused = command("reload", "--all", "--admin", node.addresses["admin"])
    assert refused.returncode == 2
    assert "nothing was changed, as this needs a restart: zone is a, and was to be b" in refused.stderr
    assert is_let_in(connect, node, "second")

    file.write_text(SETTINGS.replace("first", "third"))
    done = command("reload", "--all", "--admin", node.addresses["admin"])
    admin = node.addresses["admin"]
    assert done.stdout.splitlines() == [
        f"{admin}: access_keys was second, and is third",
        f"{admin}: connections_max was 301, and is 300",
    ]
    assert is_let_in(connect, node, "third")
