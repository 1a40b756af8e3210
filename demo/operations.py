"""The demo's second half: the cluster grows from three nodes to five, one is replaced, and it shrinks to three again.

    nodes 4 and 5 join --> node 2 is killed, node 6 joins in its place --> nodes 4 and 5 leave

All the while clients write. Those that have left are taken from the clients' list afterwards, as by a load balancer
that finds them gone; a node that was killed likewise.
"""

from __future__ import annotations

import multiprocessing
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from demo.cities import Item
from demo.workers import Visits, visit
from merganser.cli.operating import Cluster
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode

DEAD = 1
WRITERS = 2
OPERATION_TIMEOUT_S = 400.0
"""Long enough for a machine whose cores are wanted by twenty other processes."""
AWAY_TIMEOUT_S = 30.0
POLL_S = 0.1


@dataclass
class Step:
    """One operation; times in seconds of the machine's monotonic clock."""

    name: str
    began_s: float
    ended_s: float


@dataclass
class Reshaped:
    """What came of it."""

    steps: list[Step] = field(default_factory=list)
    visits: list[Visits] = field(default_factory=list)
    problem: str = ""
    """Why it did not come to its end."""

    @property
    def items(self) -> list[Item]:
        """All that was acknowledged."""
        return [item for one in self.visits for item in one.items()]


def reshape(console: Console, cluster: LocalCluster) -> Reshaped:
    """Do it, while two processes write; ``cluster`` has its nodes afterwards, ended ones among them."""
    done = Reshaped()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Manager() as manager, ProcessPoolExecutor(WRITERS, mp_context=spawn) as pool:
        endpoints: Any = manager.list([node.dynamodb_url for node in cluster.nodes])
        stop: Any = manager.Event()
        futures = [pool.submit(visit, endpoints, stop, number) for number in range(WRITERS)]
        try:
            _Operator(console, cluster, endpoints, done, futures).work()
        except ConfigurationError as error:
            done.problem = str(error)
        finally:
            stop.set()
        done.visits = [future.result() for future in futures]
    return done


class _Operator:
    """Has the cluster do one operation after the other."""

    def __init__(
        self,
        console: Console,
        cluster: LocalCluster,
        endpoints: list[str],
        done: Reshaped,
        writers: Sequence[Future[Visits]],
    ) -> None:
        self._console = console
        self._cluster = cluster
        self._endpoints = endpoints
        self._done = done
        self._writers = writers
        self._began_s = time.monotonic()

    def work(self) -> None:
        first, _, third, fourth, fifth = *self._cluster.nodes, self._new(4), self._new(5)
        self._say("nodes 4 and 5 serve, and own nothing yet; clients find them")
        self._operate("join 4 5", {"kind": "join", "nodes": [_name(fourth), _name(fifth)]})
        dead = self._cluster.nodes[DEAD]
        self._say(f"kill -9 of node {DEAD + 1}, process {dead.pid}; its disk is not used again")
        dead.kill()
        sixth = self._new(6)
        self._endpoints.remove(dead.dynamodb_url)
        self._operate("replace 2 --by 6", {"kind": "replace", "nodes": [_name(dead)], "by": _name(sixth)})
        self._operate("leave 4 5", {"kind": "leave", "nodes": [_name(fourth), _name(fifth)]})
        for node in fourth, fifth:
            if not node.has_ended(AWAY_TIMEOUT_S) or node.exit_status != 0:
                raise ConfigurationError(f"node {_name(node)} has left and did not end: status {node.exit_status}")
            self._endpoints.remove(node.dynamodb_url)
        there = ", ".join(node.dynamodb_url for node in (first, third, sixth))
        self._say(f"nodes 4 and 5 have ended by themselves; three nodes serve: {there}")

    def _new(self, number: int) -> LocalNode:
        node = self._cluster.add_node(zone=f"zone-{(number - 1) % 3 + 1}")
        node.start()
        node.wait_until_ready()
        self._endpoints.append(node.dynamodb_url)
        return node

    def _operate(self, command: str, wanted: dict[str, object]) -> None:
        admin = Cluster(self._cluster.nodes[0].addresses["admin"])
        deadline = time.monotonic() + AWAY_TIMEOUT_S
        while (plan := admin.post("/operation/plan", wanted))["objections"]:  # a dead node has yet to be found dead
            if time.monotonic() > deadline:
                raise ConfigurationError(f"{command}: {plan['objections'][0]}")
            time.sleep(POLL_S)
        owned = ", ".join(f"{node['number']}: {node['owned']} -> {node['owned_after']}" for node in plan["nodes"])
        self._say(f"merganser {command}: {plan['moves']} of {plan['partitions']} partitions move ({owned})")
        began_s, name = time.monotonic(), secrets.token_hex(8)
        admin.post("/operation/begin", {**wanted, "id": name})
        self._wait(command, admin, name)
        self._done.steps.append(Step(command, began_s, time.monotonic()))
        self._say(f"merganser {command}: done in {time.monotonic() - began_s:.1f} s")

    def _wait(self, command: str, admin: Cluster, name: str) -> None:
        deadline = time.monotonic() + OPERATION_TIMEOUT_S
        while True:
            page = admin.fetch("/operation")
            if page["last"] is not None and page["last"]["id"] == name:
                if not page["last"]["is_done"]:
                    raise ConfigurationError(f"{command} was cancelled")
                return
            for writer in self._writers:
                if writer.done():
                    writer.result()  # raises what ended it
            if time.monotonic() > deadline:
                raise ConfigurationError(f"{command} was not done in {OPERATION_TIMEOUT_S:g} s: {page['running']}")
            time.sleep(POLL_S)

    def _say(self, text: str) -> None:
        self._console.print(f"  +{time.monotonic() - self._began_s:5.1f} s  {text}", highlight=False)


def _name(node: LocalNode) -> str:
    return node.addresses["admin"]
