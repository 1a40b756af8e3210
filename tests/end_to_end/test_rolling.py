"""Three nodes are drained, stopped, and started on a newer version, one after another, while clients write and read."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import boto3
import orjson
import pytest
from botocore.config import Config

from merganser.model.versions import NEWEST
from merganser.node.local_cluster import LocalCluster, LocalNode

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process


def status(node: LocalNode, page: str = "status") -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://{node.addresses['admin']}/{page}", timeout=10) as response:
            found: dict[str, Any] = orjson.loads(response.read())
    except urllib.error.HTTPError as error:
        found = orjson.loads(error.read())
    return found


class Clients:
    """Of an SDK that retries, each with the nodes that a load balancer would send it to: those whose health is well."""

    def __init__(self, nodes: list[LocalNode], table: str) -> None:
        """Begin to write and read ``table``."""
        self.failures: list[str] = []
        self.written: dict[str, str] = {}
        self.away: LocalNode | None = None
        self._nodes, self._table, self._is_over = nodes, table, threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(3)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return once all have ended."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int) -> None:
        config = Config(retries={"mode": "standard", "total_max_attempts": 8}, connect_timeout=2, read_timeout=5)
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        clients = [
            boto3.session.Session().client("dynamodb", endpoint_url=node.dynamodb_url, config=config, **keys)  # type: ignore[call-overload]
            for node in self._nodes
        ]
        count = 0
        while not self._is_over.is_set():
            count += 1
            key, value = f"{number}-{count % 20}", f"value-{count}"
            place = (number + count) % len(clients)
            client = clients[place if self._nodes[place] is not self.away else place - 1]
            try:
                client.put_item(TableName=self._table, Item={"pk": {"S": key}, "value": {"S": value}})
                self.written[key] = value
                found = client.get_item(TableName=self._table, Key={"pk": {"S": key}}, ConsistentRead=True)
                assert found["Item"]["value"]["S"] == value
            except Exception as error:  # noqa: BLE001  # whatever a client sees counts
                self.failures.append(f"{key}: {error!r}")
        for client in clients:
            client.close()


def test_rolling_upgrade_with_draining_fails_nothing_and_loses_nothing(
    tmp_path: Path, connect: Any, make_table: Any, command: Any, read_back: Any, eventually: Callable[..., None]
) -> None:
    config = tmp_path / "older.toml"
    config.write_text("peer_protocol_max = 2\n")
    with LocalCluster(tmp_path / "cluster", arguments=("--config", str(config))) as cluster:
        client = connect(cluster.nodes[0].dynamodb_url)
        table = make_table(client)
        clients = Clients(cluster.nodes, table)
        try:
            for node in cluster.nodes:
                assert status(cluster.nodes[0])["cluster_version"] == 2
                clients.away = node
                drained = command("drain", "--admin", node.addresses["admin"])
                assert drained.returncode == 0, drained.stdout + drained.stderr
                assert "is drained" in drained.stdout
                assert status(node, "health") == {"state": "draining"}
                assert status(node)["leadership"]["groups_led"] == 0
                node.stop()
                assert node.exit_status == 0
                node.arguments = node.arguments[:-2]  # without the configuration that holds it back
                node.start()
                node.wait_until_ready()
                eventually(lambda: all(status(node)["peers"][peer]["connected"] for peer in status(node)["peers"]))  # noqa: B023
                clients.away = None
            eventually(lambda: all(status(node)["cluster_version"] == NEWEST for node in cluster.nodes))
            eventually(lambda: len(clients.written) == 60)
        finally:
            clients.stop()
        assert clients.failures == []
        for node in cluster.nodes:
            assert read_back(connect(node.dynamodb_url), table) == clients.written


def test_a_drained_node_serves_again_when_asked(
    cluster: LocalCluster, connect: Any, make_table: Any, command: Any, eventually: Callable[..., None]
) -> None:
    node = cluster.nodes[0]
    table = make_table(connect(node.dynamodb_url))
    eventually(lambda: status(node)["leadership"]["groups_led"] > 0)
    assert command("drain", "--admin", node.addresses["admin"]).returncode == 0
    client = connect(node.dynamodb_url)
    answer = client.put_item(TableName=table, Item={"pk": {"S": "k"}})  # it still answers who asks it
    assert answer["ResponseMetadata"]["HTTPHeaders"]["connection"] == "close"
    assert command("undrain", "--admin", node.addresses["admin"]).returncode == 0
    assert status(node, "health") == {"state": "serving"}
    eventually(lambda: status(node)["leadership"]["groups_led"] > 0)
    answer = client.put_item(TableName=table, Item={"pk": {"S": "k"}})
    assert "connection" not in answer["ResponseMetadata"]["HTTPHeaders"]
