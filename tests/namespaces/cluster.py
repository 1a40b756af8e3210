"""Real nodes in the namespaces of a network, each on a disk of its own if asked."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from merganser.node.local_cluster import LocalNode
from merganser.testing.links import Links
from namespaces.disks import Disk
from namespaces.network import Network

DYNAMODB_PORT, PEER_PORT, ADMIN_PORT = 8000, 7700, 7800
WAIT_S = 30.0


class NamespaceCluster:
    """A cluster whose nodes have a machine each, as far as network and disk go."""

    def __init__(
        self,
        directory: Path,
        network: Network,
        *,
        links: Links | None = None,
        has_disks: bool = False,
        disk_reserve_mib: int = 0,
    ) -> None:
        """Prepare nodes for every namespace of ``network``.

        Args:
            directory: for data and logs.
            network: already made.
            links: in front of the peer ports; they must listen among the clients.
            has_disks: a small disk for the data of each.
            disk_reserve_mib: with less free, rows are refused.
        """
        self.network = network
        self.links = links
        self._reserve = ("--disk-reserve-mib", str(disk_reserve_mib)) if has_disks else ()
        self.disks = [Disk(directory / f"disk-{i}") for i in range(network.nodes)] if has_disks else []
        self._closing = contextlib.ExitStack()
        peers = [f"{network.host(i)}:{PEER_PORT}" for i in range(network.nodes)]
        if links is not None:
            links.lead_to(peers)
        advertised = links.addresses if links is not None else peers
        self.nodes = [self._node(directory, i, advertised) for i in range(network.nodes)]

    def _node(self, directory: Path, number: int, advertised: Sequence[str]) -> LocalNode:
        place = self.disks[number].directory if self.disks else directory / f"node-{number}"
        arguments = [
            *("--data", str(place / "data")),
            *("--host", "0.0.0.0", "--advertise-host", self.network.host(number)),
            *("--peer-advertise", advertised[number]),
            *("--dynamodb-port", str(DYNAMODB_PORT), "--peer-port", str(PEER_PORT), "--admin-port", str(ADMIN_PORT)),
            *("--zone", f"zone-{number}", "--no-auth"),
            *self._reserve,
            *(option for address in advertised for option in ("--seed", address)),
        ]
        return LocalNode(directory / f"node-{number}", arguments, prefix=self.network.command_in(number))

    def __enter__(self) -> Self:
        """Start every node; returns when all serve."""
        try:
            for disk in self.disks:
                self._closing.enter_context(disk)
            self._closing.callback(self._stop)
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                node.wait_until_ready()
            self.wait_until_connected()
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop every node, then take the disks away."""
        self._closing.close()

    @property
    def urls(self) -> list[str]:
        """DynamoDB endpoints, to be reached from among the clients."""
        return [node.dynamodb_url for node in self.nodes]

    def status(self, number: int) -> dict[str, Any]:
        """Return what the admin port of a node tells."""
        return self._ask(number, "/status")

    def wait_until_connected(self, numbers: Sequence[int] | None = None) -> None:
        """Return when every node, or each of ``numbers``, serves and is connected to every other of them."""
        wanted = range(len(self.nodes)) if numbers is None else numbers
        deadline = time.monotonic() + WAIT_S
        while not all(self._connected(number) >= len(wanted) - 1 for number in wanted):
            assert time.monotonic() < deadline, "the nodes did not find one another again in time"
            time.sleep(0.05)  # between two looks

    def restart(self, number: int) -> None:
        """Start a node that has ended; returns when it serves."""
        self.nodes[number].start()
        self.nodes[number].wait_until_ready()

    def cut_power(self, numbers: Sequence[int]) -> None:
        """End nodes at one moment as a power cut does: what their systems had not put on the disks is gone."""
        for number in numbers:
            self.nodes[number].kill(signal.SIGSTOP)
        for number in numbers:
            image = self.disks[number].snapshot()
            self.nodes[number].kill()
            self.disks[number].come_back_as(image)

    def complaints(self) -> list[str]:
        """Return what nodes have logged as errors."""
        return [line for node in self.nodes for line in node.log.read_text().splitlines() if '"level":"error"' in line]

    def _connected(self, number: int) -> int:
        """Return how many peers a node is connected to; -1 if it does not serve."""
        try:
            found = self.status(number)
        except (OSError, http.client.HTTPException):
            return -1
        if found.get("state") != "serving":
            return -1
        return sum(peer["connected"] for peer in found["peers"].values())

    def _ask(self, number: int, path: str) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            connection = http.client.HTTPConnection(self.network.host(number), ADMIN_PORT, timeout=2)
            try:
                connection.request("GET", path)
                found: dict[str, Any] = json.loads(connection.getresponse().read())
            finally:
                connection.close()
            return found

        with self.network.threads(1) as thread:
            return thread.submit(ask).result()

    def _stop(self) -> None:
        for node in self.nodes:
            node.kill(signal.SIGCONT)
            node.kill(signal.SIGTERM)
        for node in self.nodes:
            node.stop()
