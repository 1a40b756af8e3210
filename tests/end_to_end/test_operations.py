"""Real clusters grow, shrink and lose nodes while clients write: nothing is lost, and no client sees an error."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

PARTITIONS = 32
PAUSE_S = 0.02
"""Between two puts of a writer: the tests look for what is lost, not for how much a node can do."""

Command = Callable[..., subprocess.CompletedProcess[str]]


class Writer:
    """Puts one item after another into some tables, through whichever nodes there are, as an application would."""

    def __init__(self, endpoints: list[str], tables: list[str]) -> None:
        """Begin."""
        self.endpoints = endpoints
        self.acknowledged: dict[str, list[str]] = {table: [] for table in tables}
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def stop(self) -> None:
        """Return once nothing is under way."""
        self._stop.set()
        self._thread.join()

    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    def _write(self) -> None:
        client_of = import_module("demo.clients").client_of
        known: list[str] = []
        number = 0
        while not self._stop.wait(PAUSE_S):
            if known != self.endpoints:
                known = list(self.endpoints)
                client = client_of(known)
            number += 1
            for table, done in self.acknowledged.items():
                try:
                    client.put_item(TableName=table, Item={"pk": {"S": f"key-{number}"}, "value": {"S": "x"}})
                except (BotoCoreError, ClientError) as error:
                    self.errors.append(str(error))
                else:
                    done.append(f"key-{number}")


class Growing:
    """A cluster that changes, with a writer at work."""

    def __init__(self, cluster: LocalCluster, writer: Writer, command: Command) -> None:
        self.cluster = cluster
        self.writer = writer
        self._command = command

    def add(self) -> LocalNode:
        node = self.cluster.add_node()
        node.start()
        node.wait_until_ready()
        self.writer.endpoints = [*self.writer.endpoints, node.dynamodb_url]
        return node

    def drop(self, node: LocalNode) -> None:
        self.writer.endpoints = [url for url in self.writer.endpoints if url != node.dynamodb_url]

    def do(self, *arguments: str, by: LocalNode | None = None) -> subprocess.CompletedProcess[str]:
        asked = by or next(node for node in self.cluster.nodes if node.pid is not None)
        return self._command(*arguments, "--admin", asked.addresses["admin"])


@pytest.fixture
def growing(
    tmp_path: Path, connect: Callable[..., DynamoDBClient], make_table: Callable[..., str], command: Command
) -> Iterator[Growing]:
    config = tmp_path / "merganser.toml"
    config.write_text(f"partitions = {PARTITIONS}\n")
    arguments = ("--config", str(config))
    with LocalCluster(tmp_path / "cluster", arguments=arguments) as cluster:
        endpoints = [node.dynamodb_url for node in cluster.nodes]
        client = connect(endpoints[0])
        tables = [make_table(client), make_table(client, is_leaderless=True)]
        writer = Writer(endpoints, tables)
        try:
            yield Growing(cluster, writer, command)
        finally:
            writer.stop()


def assert_nothing_lost(
    growing: Growing, connect: Callable[..., DynamoDBClient], read_back: Callable[..., dict[str, Any]]
) -> None:
    """Every item that was acknowledged is there for each node that runs, and no client saw an error."""
    growing.writer.stop()
    assert growing.writer.errors == []
    assert growing.writer.count() > 0
    for node in growing.cluster.nodes:
        if node.pid is not None:
            client = connect(node.dynamodb_url)
            for table, keys in growing.writer.acknowledged.items():
                assert set(keys) <= read_back(client, table).keys()


def test_a_cluster_grows_by_one_node_and_shrinks_again(growing: Growing, connect: Any, read_back: Any) -> None:
    newcomer = growing.add()
    joined = growing.do("join", newcomer.addresses["peers"], "--yes")
    assert (joined.returncode, joined.stderr) == (0, "")
    assert joined.stdout.splitlines()[-1].endswith(": done")
    assert growing.do("ring").stdout.count(" 8 ") >= 4  # partitions of each
    refused = growing.do("remove", "4", "--yes")
    assert refused.returncode == 1
    assert "is alive, and what only it holds would be lost" in " ".join(refused.stdout.split())
    assert "no operation is under way" in growing.do("operation").stdout
    leaver = growing.cluster.nodes[0]
    left = growing.do("leave", leaver.addresses["admin"], "--yes", by=leaver)
    assert (left.returncode, left.stderr) == (0, "")
    assert leaver.has_ended(20.0)
    assert leaver.exit_status == 0
    growing.drop(leaver)
    leaver.start()
    with pytest.raises(ConfigurationError, match="empty its data directory to use the machine again"):
        leaver.wait_until_ready()
    assert_nothing_lost(growing, connect, read_back)


@pytest.mark.soak
def test_a_cluster_grows_to_five_replaces_one_and_shrinks_to_three_through_kills(
    growing: Growing, connect: Any, read_back: Any
) -> None:
    fourth, fifth = growing.add(), growing.add()
    assert growing.do("join", "4", "5", "--yes", "--detach").returncode == 0
    driver = growing.cluster.nodes[0]
    driver.kill()  # the first voter drives
    driver.start()
    fifth.kill()
    fifth.start()
    driver.wait_until_ready()
    fifth.wait_until_ready()
    assert growing.do("operation", "--wait", by=fourth).returncode == 0
    dead = growing.cluster.nodes[1]
    dead.kill()
    growing.drop(dead)
    sixth = growing.add()
    replaced = growing.do("replace", "2", "--by", sixth.addresses["peers"], "--yes", by=fourth)
    while "is alive" in replaced.stdout:
        replaced = growing.do("replace", "2", "--by", sixth.addresses["peers"], "--yes", by=fourth)
    assert replaced.returncode == 0
    assert growing.do("leave", "4", "5", "--yes").returncode == 0
    for node in fourth, fifth:
        assert node.has_ended(20.0)
        assert node.exit_status == 0
        growing.drop(node)
    assert_nothing_lost(growing, connect, read_back)


@pytest.mark.soak
def test_one_node_grows_to_three_and_shrinks_to_one_again(
    tmp_path: Path, connect: Any, make_table: Any, command: Command, read_back: Any, eventually: Any
) -> None:
    config = tmp_path / "merganser.toml"
    config.write_text("partitions = 8\n")
    with LocalCluster(tmp_path / "cluster", nodes=1, arguments=("--config", str(config))) as cluster:
        (first,) = cluster.nodes
        client = connect(first.dynamodb_url)
        tables = [make_table(client), make_table(client, is_leaderless=True)]
        writer = Writer([first.dynamodb_url], tables)
        growing = Growing(cluster, writer, command)
        try:
            second, third = growing.add(), growing.add()
            addresses = [node.addresses["peers"] for node in (second, third)]
            assert growing.do("join", *addresses, "--yes").returncode == 0
            written = {table: set(keys) for table, keys in writer.acknowledged.items()}
            for node in second, third:  # three replicas of 8 partitions: every node holds everything by itself
                held = {table: read_back(connect(node.dynamodb_url), table).keys() for table in tables}
                assert all(written[table] <= held[table] for table in tables)
            assert growing.do("split", "--yes").stdout.splitlines()[-1].endswith(": done")
            assert "16 partitions" in " ".join(growing.do("ring").stdout.split())
            before = writer.count()
            eventually(lambda: writer.count() > before)
            refused = growing.do("leave", "2", "3", "--yes")
            assert "1 node would be left to hold them" in " ".join(refused.stdout.split())
            assert growing.do("leave", "2", "3", "--yes", "--force").returncode == 0
            for node in second, third:
                growing.drop(node)
                assert node.has_ended(20.0)
                assert node.exit_status == 0
            before = writer.count()
            eventually(lambda: writer.count() > before)
            assert_nothing_lost(growing, connect, read_back)
        finally:
            writer.stop()
