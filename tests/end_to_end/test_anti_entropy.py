"""Real nodes become equal by themselves: an old disk is brought up without a read and without a hint."""

from __future__ import annotations

import json
import shutil
import signal
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from merganser.node.local_cluster import LocalCluster, LocalNode

pytestmark = pytest.mark.process

ITEMS = 200


def status(node: LocalNode) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{node.addresses['admin']}/status", timeout=10) as response:
        found: dict[str, Any] = json.load(response)
        return found


def met_by(nodes: Sequence[LocalNode]) -> int:
    """Return how many rows comparisons have changed, counted where they were begun."""
    totals = [status(node)["anti_entropy"] for node in nodes]
    return sum(total["met_here"] + total["met_there"] for total in totals)


def test_an_old_disk_is_brought_up_without_a_read(
    tmp_path: Path, connect: Any, make_table: Any, eventually: Any
) -> None:
    config = tmp_path / "merganser.toml"
    config.write_text("repair_interval_s = 1\npartitions = 8\n")
    cluster = LocalCluster(tmp_path / "cluster", nodes=3, arguments=("--config", str(config)))
    with cluster:
        old, other, _ = cluster.nodes
        client = connect(other.dynamodb_url)
        table = make_table(client, is_leaderless=True)
        eventually(lambda: len(status(old)["tables"]) == 1)
        old.kill(signal.SIGTERM)
        old.stop()
        shutil.copytree(old.directory / "data", tmp_path / "old")
        old.start()
        old.wait_until_ready()
        for number in range(ITEMS):
            client.put_item(TableName=table, Item={"pk": {"S": str(number)}})
        eventually(lambda: all(not status(node)["hints"]["stored"] for node in cluster.nodes))
        old.kill(signal.SIGTERM)
        old.stop()
        shutil.rmtree(old.directory / "data")
        shutil.copytree(tmp_path / "old", old.directory / "data")
        before = met_by(cluster.nodes[1:])
        old.start()
        old.wait_until_ready()
        eventually(lambda: met_by(cluster.nodes) - before >= ITEMS)
        assert sum(status(node)["read_repairs"]["sent"] for node in cluster.nodes) == 0
