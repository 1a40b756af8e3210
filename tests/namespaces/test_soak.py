"""The long run: one fault after another, drawn by a seed, on three and on five nodes. Only under ``make soak``."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest

from namespaces.cluster import NamespaceCluster
from namespaces.workload import Workload

pytestmark = [pytest.mark.process, pytest.mark.soak]

ROUNDS = 40


class Nemesis:
    """Brings about one fault at a time; the seed decides which, where and how long."""

    def __init__(self, cluster: NamespaceCluster, load: Workload, rng: random.Random) -> None:
        self._cluster = cluster
        self._load = load
        self._rng = rng
        self._everyone = list(range(len(cluster.nodes)))

    def round(self) -> str:
        """Do something, let the clients go on, put it right; returns what it was."""
        victim = self._rng.choice(self._everyone)
        faults = (
            self._cut_off,
            self._cut_one_way,
            self._lose,
            self._reset,
            self._stop,
            self._kill,
            self._kill_all,
            self._cut_power,
            self._cut_all_power,
            self._fill_disk,
        )
        fault = self._rng.choice(faults)
        fault(victim)
        self._cluster.network.heal()
        if self._rng.random() < 0.5:  # otherwise the next one strikes before the nodes have found each other
            self._cluster.wait_until_connected()
        return f"{fault.__name__.removeprefix('_').replace('_', ' ')} {victim}"

    def _go_on(self) -> None:
        self._load.wait_for_progress(self._rng.choice([10, 40, 200]))

    def _cut_off(self, victim: int) -> None:
        self._cluster.network.partition([victim], [node for node in self._everyone if node != victim])
        self._go_on()

    def _cut_one_way(self, victim: int) -> None:
        other = self._rng.choice([node for node in self._everyone if node != victim])
        self._cluster.network.cut(sender=other, receiver=victim)
        self._go_on()

    def _lose(self, victim: int) -> None:
        self._cluster.network.lose(self._rng.choice([5, 20, 40]))
        self._go_on()

    def _reset(self, victim: int) -> None:
        self._cluster.network.reset(victim)
        self._go_on()

    def _stop(self, victim: int) -> None:
        self._cluster.nodes[victim].kill(signal.SIGSTOP)
        self._go_on()
        self._cluster.nodes[victim].kill(signal.SIGCONT)

    def _kill(self, victim: int) -> None:
        self._cluster.nodes[victim].kill()
        self._go_on()
        self._cluster.restart(victim)

    def _kill_all(self, victim: int) -> None:
        for node in self._cluster.nodes:
            node.kill()
        self._restart_all()

    def _cut_power(self, victim: int) -> None:
        self._cluster.cut_power([victim])
        self._go_on()
        self._cluster.restart(victim)

    def _cut_all_power(self, victim: int) -> None:
        self._cluster.cut_power(self._everyone)
        self._restart_all()

    def _fill_disk(self, victim: int) -> None:
        self._cluster.disks[victim].fill()
        self._go_on()
        self._cluster.disks[victim].free()
        self._cluster.nodes[victim].stop()
        self._cluster.restart(victim)

    def _restart_all(self) -> None:
        for node in self._cluster.nodes:
            node.start()
        for node in self._cluster.nodes:
            node.wait_until_ready()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("nodes", [3, 5])
def test_fault_after_fault_loses_nothing_and_shows_nothing_stale(
    can_make_disks: None, laboratory: Any, verdict: Any, nodes: int, seed: int
) -> None:
    cluster, load = laboratory(nodes=nodes, has_disks=True, seed=seed)
    nemesis = Nemesis(cluster, load, random.Random(seed))
    for _ in range(ROUNDS):
        print(nemesis.round(), "-", load.summary())  # noqa: T201  # pytest shows it when the verdict is bad
    verdict(cluster, load)
