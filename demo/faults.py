"""What the demo does to the cluster while it is being written to.

    load begins --1/3--> partition --PARTITION_S, or 60 %--> healed --2/3--> crash --DOWN_S--> restarted

One node is cut off from the other two, both ways and without a word, as by a switch that fails; later
another one is killed with -9. Neither begins before the other is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from merganser.node.local_cluster import LocalCluster
from merganser.testing.links import Links

LONELY = 2
VICTIM = 1
PARTITION_S = 4.0
HEAL_SHARE = 0.6
"""However fast the load is, the crash still finds some of it."""
DOWN_S = 2.0
FAULTS = 2


@dataclass
class Fault:
    """One fault; times in seconds of the machine's monotonic clock."""

    name: str
    """As in "the longest gap …"."""
    began_s: float
    ended_s: float | None = None
    """When all nodes served and talked again; None while it lasts."""


class Faults:
    """Brings the faults about, in the order of the module's docstring."""

    def __init__(self, cluster: LocalCluster, links: Links, say: Callable[[str], None]) -> None:
        """Do it to ``cluster``, whose nodes are joined by ``links``; ``say`` is told of each step."""
        self._cluster = cluster
        self._links = links
        self._say = say
        self.partition: Fault | None = None
        self.crash: Fault | None = None
        self._restarted_s: float | None = None

    def go_on(self, share: float) -> None:
        """Do what is due when ``share`` of the load is done, 0 to 1."""
        now_s = time.monotonic()
        if self.partition is None:
            if share >= 1 / 3:
                self._cut_off(now_s)
        elif self.partition.ended_s is None:
            if now_s - self.partition.began_s >= PARTITION_S or share >= HEAL_SHARE:
                self._heal(self.partition)
        elif self.crash is None:
            if share >= 2 / 3:
                self._kill(now_s)
        elif self.crash.ended_s is None and now_s - self.crash.began_s >= DOWN_S:
            self._restart(self.crash)

    def finish(self) -> list[Fault]:
        """End what still lasts, and return what there was."""
        if self.partition is not None and self.partition.ended_s is None:
            self._heal(self.partition)
        if self.crash is not None:
            while self.crash.ended_s is None:
                self._restart(self.crash)
                time.sleep(0.01)  # between two looks at the node's log
        return [fault for fault in (self.partition, self.crash) if fault is not None]

    def _cut_off(self, now_s: float) -> None:
        self._say(f"a third: node {LONELY + 1} is cut off from the other two; the load goes on")
        self._links.cut_off(LONELY)
        self.partition = Fault(f"while node {LONELY + 1} was cut off", now_s)

    def _heal(self, partition: Fault) -> None:
        self._links.heal()
        partition.ended_s = time.monotonic()
        self._say(f"healed after {partition.ended_s - partition.began_s:.1f} s")

    def _kill(self, now_s: float) -> None:
        victim = self._cluster.nodes[VICTIM]
        self._say(f"two thirds: kill -9 of node {VICTIM + 1}, process {victim.pid}; the load goes on")
        victim.kill()
        self.crash = Fault(f"while node {VICTIM + 1} was killed and came back", now_s)

    def _restart(self, crash: Fault) -> None:
        victim = self._cluster.nodes[VICTIM]
        if self._restarted_s is None:
            self._restarted_s = time.monotonic()
            victim.start()
        elif victim.is_ready():
            crash.ended_s = time.monotonic()
            self._say(f"node {VICTIM + 1} serves again {crash.ended_s - self._restarted_s:.2f} s after its restart")
