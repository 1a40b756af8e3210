"""A table moves on a real cluster while it is written to: nothing is lost, and its bytes leave the files."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from merganser.cli.admin_port import fetch
from merganser.client import SyncClient
from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = [pytest.mark.process, pytest.mark.soak]

SECRET = "Goldregenpfeifer"
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/"


class Writer:
    """Puts one item after another, and tries each again until it is taken, as an SDK does."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        """Begin."""
        self.done: list[str] = []
        self.longest_s = 0.0
        self._client = client
        self._table = table
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def stop(self) -> None:
        """Return once nothing is under way."""
        self._stop.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._stop.wait(0.02):
            key, began = f"key-{len(self.done)}", time.monotonic()
            while not self._is_taken(key) and not self._stop.wait(0.02):
                continue
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.done.append(key)

    def _is_taken(self, key: str) -> bool:
        try:
            self._client.put_item(TableName=self._table, Item={"pk": {"S": key}, "value": {"S": SECRET}})
        except ClientError:
            return False
        return True


def test_a_table_moves_by_its_tags_and_by_command_while_it_is_written_to(
    tmp_path: Path,
    connect: Callable[..., DynamoDBClient],
    make_table: Callable[..., str],
    read_back: Callable[[DynamoDBClient, str], dict[str, str]],
    command: Callable[..., subprocess.CompletedProcess[str]],
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    with LocalCluster(tmp_path, zones=("a", "b", "c")) as cluster:
        admin = cluster.nodes[0].addresses["admin"]
        client = connect(cluster.nodes[2].dynamodb_url)
        table = make_table(client)
        writer = Writer(client, table)
        eventually(lambda: len(writer.done) > 20)

        client.tag_resource(ResourceArn=ARN + table, Tags=[{"Key": "merganser:zones", "Value": "a b"}])
        with pytest.raises(ClientError, match="ResourceInUse"):
            client.tag_resource(ResourceArn=ARN + table, Tags=[{"Key": "merganser:replicas", "Value": "1"}])
        eventually(lambda: fetch(admin, "/operation")["running"] is None)
        assert not (held := holding(cluster.nodes[2].directory)), held
        count = len(writer.done)
        eventually(lambda: len(writer.done) > count + 20)

        done = command("table", "policy", table, "--zones", "c", "--replicas", "1", "--yes", "--admin", admin)
        assert done.returncode == 0, done.stdout + done.stderr
        told = client.list_tags_of_resource(ResourceArn=ARN + table)["Tags"]
        assert told == [{"Key": "merganser:replicas", "Value": "1"}, {"Key": "merganser:zones", "Value": "c"}]
        writer.stop()
        assert not holding(cluster.nodes[0].directory)
        assert not holding(cluster.nodes[1].directory)
        assert set(read_back(connect(cluster.nodes[0].dynamodb_url), table)) >= set(writer.done)


def holding(directory: Path) -> list[Path]:
    """Return the files in which there is anything of what was written."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_table_moves_by_the_native_client(tmp_path: Path, eventually: Callable[[Callable[[], object]], None]) -> None:
    with LocalCluster(tmp_path, zones=("a", "b", "c")) as cluster:
        with SyncClient(cluster.nodes[0].addresses["peers"], timeout_s=30.0) as client:
            table = client.create_table("t")
            table.put("k", SECRET)
            eventually(lambda: holding(cluster.nodes[2].directory))
            assert client.set_policy("t", n=2, zones=["a", "b"]) == "2 in zones a, b"
            eventually(lambda: client.policy("t") == "2 in zones a, b")
            eventually(lambda: fetch(cluster.nodes[0].addresses["admin"], "/operation")["running"] is None)
            assert table.get("k").value == SECRET.encode()
        assert not (held := holding(cluster.nodes[2].directory)), held
