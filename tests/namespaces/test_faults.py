"""Real nodes under the faults of real networks and processes, judged by what boto3 clients saw."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from merganser.testing.registers import Outcome
from namespaces.cluster import NamespaceCluster
from namespaces.workload import Workload

pytestmark = pytest.mark.process


def test_faults_of_network_and_processes_lose_nothing_and_show_nothing_stale(laboratory: Any, verdict: Any) -> None:
    cluster: NamespaceCluster
    load: Workload
    cluster, load = laboratory()
    network = cluster.network

    network.partition([0], [1, 2])
    load.wait_for_progress()
    network.heal()
    network.cut(sender=1, receiver=2)
    load.wait_for_progress()
    network.heal()
    network.lose(percent=20)
    load.wait_for_progress()
    network.heal()
    network.reset(2)
    load.wait_for_progress()
    network.heal()

    cluster.nodes[0].kill(signal.SIGSTOP)
    load.wait_for_progress()
    cluster.nodes[0].kill(signal.SIGCONT)
    cluster.nodes[1].kill(signal.SIGKILL)
    load.wait_for_progress()
    cluster.restart(1)
    verdict(cluster, load)
    assert any(put.outcome is not Outcome.ACKNOWLEDGED for put in load.puts)  # or the faults were none
