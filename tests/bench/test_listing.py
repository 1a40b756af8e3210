"""What it takes to list keys, on one real node: all of them are there, and the figures are of this list."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from merganser.bench.listing import Listed, Plan, measure, told
from merganser.node.local_cluster import LocalCluster


@pytest.mark.process
def test_all_keys_are_listed_and_what_is_sent_is_counted(tmp_path: Path) -> None:
    plan = Plan(keys=600, nodes=1, turns=2)
    with LocalCluster(tmp_path, nodes=1) as cluster:
        (node,) = cluster.nodes
        assert node.pid is not None
        found = asyncio.run(measure([node.addresses["peers"]], [node.pid], plan))
    assert len(found) == 2
    for listed in found:
        assert listed.seconds > 0
        assert 600 * len("key-00000000") < listed.sent_bytes < 600 * plan.value_bytes  # keys, and no values


def test_the_figures_are_told_in_a_table() -> None:
    lines = told([Listed(2.25, 1.5, 6_300_000)], Plan())
    assert lines == ["100,000 keys of 3 nodes", "      wall       CPU        sent", "    2.25 s    1.50 s     6.30 MB"]
