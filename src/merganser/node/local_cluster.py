"""Node processes on this machine: start, wait until they serve, kill, restart, stop.

Each node is a real ``merganser serve`` process with its own directory and log. A node also stops when
its standard input ends, so that none outlives whoever started it, however that ended.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import orjson

from merganser.model.errors import ConfigurationError

START_TIMEOUT_S = 30.0  # a node is up in well under a second; a loaded machine gets time
STOP_TIMEOUT_S = 15.0
PORTS = range(15_000, 32_768)
"""Below those that Linux gives to outgoing connections, which could take the port of a node that is down."""
POLL_S = 0.005


class LocalNode:
    """One node process."""

    def __init__(
        self,
        directory: Path,
        arguments: Sequence[str],
        *,
        prefix: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> None:
        """Prepare a node that lives in ``directory``; ``arguments`` go to ``merganser serve``.

        Args:
            directory: made if absent.
            arguments: options.
            prefix: a command that becomes the one that follows it, as ``nsenter`` does.
            environment: of the process; none: that of this one.
            python: whose Merganser it runs.
        """
        self.directory = directory
        self.log = directory / "node.log"
        self.addresses: dict[str, str] = {}
        """host:port by door ("dynamodb", "admin", "peers"), once it serves."""
        self.arguments = tuple(arguments)
        self._prefix = tuple(prefix)
        self._environment = environment
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._log_offset = 0

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """What the last process ended with, negative for a signal; None while it runs or before the first."""
        return self._process.poll() if self._process is not None else None

    @property
    def dynamodb_url(self) -> str:
        """Endpoint for DynamoDB clients."""
        return f"http://{self.addresses['dynamodb']}"

    def start(self) -> None:
        """Start the process; `wait_until_ready` tells when it serves."""
        if self.pid is not None:
            raise ConfigurationError(f"the node in {self.directory} runs already, as process {self.pid}")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._log_offset = log.tell()
            self._process = subprocess.Popen(
                [*self._prefix, self._python, "-m", "merganser.cli", "serve", "--stop-with-stdin", *self.arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # ctrl-C is for whoever started us, who then stops us in order
            )

    def wait_until_ready(self) -> None:
        """Return once the node serves clients.

        Raises:
            ConfigurationError: it ended, or did not come up in time; the message has the node's own words.
        """
        _wait_until_ready([self])

    def is_ready(self) -> bool:
        """Tell whether the node serves clients by now.

        Raises:
            ConfigurationError: it ended; the message has the node's own words.
        """
        pid = self.pid  # before the log is read, which then has the last words
        for line in self._logged():
            if line.get("event") == "ready":
                self.addresses = {door: str(line[door]) for door in ("dynamodb", "admin", "peers")}
                return True
        if pid is None:
            raise ConfigurationError(f"the node in {self.directory} did not start: {self._last_words()}")
        return False

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal; waits for the end if it is SIGKILL."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal_number)
            if signal_number == signal.SIGKILL:
                self._reap(STOP_TIMEOUT_S)

    def has_ended(self, timeout_s: float) -> bool:
        """Tell whether the process has ended, or does so within ``timeout_s``."""
        return self._process is None or self._reap(timeout_s)

    def stop(self) -> None:
        """Ask the process to finish, and wait; kills it if it does not."""
        if self._process is None:
            return
        self.kill(signal.SIGTERM)
        if not self._reap(STOP_TIMEOUT_S):
            self.kill()

    def _reap(self, timeout_s: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        return True

    def _logged(self) -> Iterator[dict[str, object]]:
        with self.log.open("rb") as log:
            log.seek(self._log_offset)
            for line in log:
                if line.endswith(b"\n"):
                    with contextlib.suppress(orjson.JSONDecodeError):
                        yield orjson.loads(line)

    def _last_words(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_offset)
            lines = log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("merganser: ") if lines else "it said nothing"


class LocalCluster:
    """Several node processes that form one cluster; a context manager that stops them."""

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 3,
        host: str = "127.0.0.1",
        dynamodb_port: int = 0,
        peer_port: int = 0,
        admin_port: int = 0,
        zones: Sequence[str] = (),
        data_centers: Sequence[str] = (),
        peer_advertise: Sequence[str] = (),
        arguments: Sequence[str] = (),
        prefix: Sequence[str] = (),
        python: str = sys.executable,
    ) -> None:
        """Prepare ``nodes`` nodes under ``directory``.

        Args:
            directory: holds node-1, node-2, …; may hold them from an earlier run.
            nodes: how many.
            host: where they listen.
            dynamodb_port: port of the first node, the next ones count up; 0 picks free ones,
                which a node keeps when it is started again.
            peer_port: likewise.
            admin_port: likewise.
            zones: failure domains, dealt out in turn.
            data_centers: likewise, once all zones have been dealt out.
            peer_advertise: host:port for each node that leads to its peer port; none: the port itself.
            arguments: more options for every ``merganser serve``.
            prefix: of the command of each node, as for `LocalNode`.
            python: of each node, as for `LocalNode`.

        Raises:
            ConfigurationError: the directory holds a cluster of another size.
        """
        existing = len(list(directory.glob("node-*/data/node.json")))
        if existing not in (0, nodes):
            raise ConfigurationError(
                f"{directory} holds a cluster of {existing} nodes: start it with --nodes {existing}, "
                "or choose another directory"
            )
        free = iter(free_ports(host, 3 * nodes))
        peer_ports, dynamodb_ports, admin_ports = (
            [first + i if first else next(free) for i in range(nodes)]
            for first in (peer_port, dynamodb_port, admin_port)
        )
        self._directory = directory
        self._host = host
        self._python = python
        reachable = _reachable(host)
        self.peer_addresses = [f"{reachable}:{port}" for port in peer_ports]
        """host:port where each node listens for peers."""
        advertised = peer_advertise or self.peer_addresses
        assert len(advertised) == nodes
        seeds = [option for address in advertised for option in ("--seed", address)]
        self.nodes = [
            LocalNode(
                directory / f"node-{i + 1}",
                [
                    *("--data", str(directory / f"node-{i + 1}" / "data")),
                    *("--host", host, "--advertise-host", reachable),
                    *("--peer-advertise", advertised[i]),
                    *("--dynamodb-port", str(dynamodb_ports[i])),
                    *("--peer-port", str(peer_ports[i])),
                    *("--admin-port", str(admin_ports[i])),
                    *(("--zone", zones[i % len(zones)]) if zones else ()),
                    *_data_center(data_centers, i // max(1, len(zones))),
                    *seeds,
                    *arguments,
                ],
                prefix=prefix,
                python=python,
            )
            for i in range(nodes)
        ]

    def start(self) -> Self:
        """Start every node and return when all serve.

        Raises:
            ConfigurationError: one of them cannot; the others are stopped.
        """
        try:
            for node in self.nodes:
                node.start()
            _wait_until_ready(self.nodes)
        except BaseException:
            self.stop()
            raise
        return self

    def add_node(self, *, zone: str = "", join: str = "", arguments: Sequence[str] = ()) -> LocalNode:
        """Prepare one node more, in the next directory, which joins the cluster through ``join`` (the first node).

        Args:
            zone: failure domain.
            join: host:port for peers of a member.
            arguments: more options for ``merganser serve``.
        """
        directory = self._directory / f"node-{len(self.nodes) + 1}"
        ports = dict(zip(("peer", "dynamodb", "admin"), free_ports(self._host, 3), strict=True))
        node = LocalNode(
            directory,
            [
                *("--data", str(directory / "data")),
                *("--host", self._host, "--advertise-host", _reachable(self._host)),
                *(option for name, port in ports.items() for option in (f"--{name}-port", str(port))),
                *(("--zone", zone) if zone else ()),
                *("--join", join or self.nodes[0].addresses["peers"]),
                *arguments,
            ],
            python=self._python,
        )
        self.nodes.append(node)
        return node

    def stop(self) -> None:
        """Stop every node that runs."""
        for node in self.nodes:
            node.kill(signal.SIGTERM)
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()


def _reachable(host: str) -> str:
    """Return ``host``, or the loopback address if it stands for every address of this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def free_ports(host: str, count: int) -> list[int]:
    """Return ports on ``host`` that nobody listens on just now, lowest first.

    A cluster numbers its nodes by address, so that node 2 is the one in node-2.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket(family) as one, contextlib.suppress(OSError):
            one.bind((host, port))
            found.append(port)
        if len(found) == count:
            return sorted(found)
    raise ConfigurationError(f"there are no {count} free ports on {host} from {PORTS.start} to {PORTS.stop - 1}")


def _data_center(names: Sequence[str], number: int) -> Sequence[str]:
    return ("--data-center", names[number % len(names)]) if names else ()


def _wait_until_ready(nodes: Sequence[LocalNode]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    waiting = [node for node in nodes if not node.is_ready()]
    while waiting:
        if time.monotonic() > deadline:
            late = waiting[0]
            raise ConfigurationError(
                f"the node in {late.directory} was not ready in {START_TIMEOUT_S:g} s: see {late.log}"
            )
        time.sleep(POLL_S)
        waiting = [node for node in waiting if not node.is_ready()]
