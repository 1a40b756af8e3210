"""A network of namespaces: one for each node, one for the clients, a bridge between them, and firewalls.

    node 0: eth0 10.77.0.1 ---- port-0 \\
    node 1: eth0 10.77.0.2 ---- port-1  bridge, 10.77.0.254: the clients
    node 2: eth0 10.77.0.3 ---- port-2 /

The bridge lives in a namespace of its own, so nothing is added to the machine's own network, and every network
may use the same addresses. The names of namespaces are the only thing shared; they carry a random part.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

CLIENTS = "10.77.0.254"
NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_COMMANDS = ("ip", "nft", "nsenter")


def unsupported() -> str | None:
    """Return why this machine cannot make such a network; None if it can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    for command in _COMMANDS:
        if shutil.which(command) is None:
            return f"there is no command {command!r}"
    try:
        with Network(1) as network:
            network.firewall(0, incoming=[*_loss([CLIENTS], 1), *_reset("saddr", [CLIENTS])])
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().partition("\n")[0]
        return f"`{' '.join(error.cmd[:6])} …` does not work here: {said}"
    return None


class Network:
    """Namespaces and what connects them; a context manager that removes them."""

    def __init__(self, nodes: int) -> None:
        """Prepare a network for so many nodes."""
        self.nodes = nodes
        self._name = f"merganser-{os.getpid()}-{secrets.token_hex(3)}"
        self._made: list[str] = []

    def __enter__(self) -> Self:
        """Make it.

        Raises:
            subprocess.CalledProcessError: the machine does not allow it.
        """
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove it."""
        self.close()

    def close(self) -> None:
        """Remove the namespaces, and with them everything in them that no process holds."""
        while self._made:
            subprocess.run(["ip", "netns", "delete", self._made.pop()], check=False, capture_output=True)

    def host(self, node: int) -> str:
        """Return the address of a node."""
        return f"10.77.0.{node + 1}"

    def command_in(self, node: int) -> list[str]:
        """Return the command that becomes the one that follows it, in the namespace of ``node``."""
        return ["nsenter", f"--net={NAMESPACES / self._namespace(node)}"]

    def command_among_clients(self) -> list[str]:
        """Return the same for the namespace of the clients."""
        return ["nsenter", f"--net={NAMESPACES / self._bridge}"]

    def join_clients(self) -> None:
        """Move the calling thread, and no other, into the namespace of the clients."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (NAMESPACES / self._bridge).open("rb") as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter the namespace {self._bridge}")

    def threads(self, count: int) -> ThreadPoolExecutor:
        """Return threads that live among the clients."""
        return ThreadPoolExecutor(count, thread_name_prefix="client", initializer=self.join_clients)

    # Faults. Each replaces what the firewall of the nodes it is about did before.

    def partition(self, *sides: Sequence[int]) -> None:
        """Let nodes talk within each of ``sides`` only."""
        for side in sides:
            others = [self.host(node) for node in range(self.nodes) if node not in side]
            for node in side:
                self.firewall(node, incoming=_drop(others))

    def cut(self, *, sender: int, receiver: int) -> None:
        """Drop what ``sender`` sends to ``receiver``; the other way stays open."""
        self.firewall(receiver, incoming=_drop([self.host(sender)]))

    def lose(self, percent: int) -> None:
        """Drop packets between nodes at random."""
        for node in range(self.nodes):
            self.firewall(node, incoming=_loss(self._others(node), percent))

    def reset(self, node: int) -> None:
        """Reset the connections between ``node`` and the others, and refuse new ones."""
        others = self._others(node)
        self.firewall(node, incoming=_reset("saddr", others), outgoing=_reset("daddr", others))

    def heal(self) -> None:
        """Let everything pass."""
        for node in range(self.nodes):
            self.firewall(node)

    def firewall(self, node: int, *, incoming: Iterable[str] = (), outgoing: Iterable[str] = ()) -> None:
        """Replace the rules in the namespace of ``node``."""
        chains = (("input", incoming), ("output", outgoing))
        lines = ["table inet faults", "delete table inet faults", "table inet faults {"]
        for hook, rules in chains:
            lines += [f"chain {hook} {{", f"type filter hook {hook} priority 0", *rules, "}"]
        script = "\n".join([*lines, "}", ""])
        _run(*self.command_in(node), "nft", "-f", "-", script=script)

    def _others(self, node: int) -> list[str]:
        return [self.host(other) for other in range(self.nodes) if other != node]

    # Making.

    @property
    def _bridge(self) -> str:
        return f"{self._name}-bridge"

    def _namespace(self, node: int) -> str:
        return f"{self._name}-{node}"

    def _make(self) -> None:
        self._add(self._bridge)
        in_bridge = ("ip", "-n", self._bridge)
        _run(*in_bridge, "link", "add", "bridge", "type", "bridge")
        _run(*in_bridge, "address", "add", f"{CLIENTS}/24", "dev", "bridge")
        _run(*in_bridge, "link", "set", "bridge", "up")
        for node in range(self.nodes):
            namespace = self._namespace(node)
            self._add(namespace)
            port = f"port-{node}"
            _run(*in_bridge, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _run(*in_bridge, "link", "set", port, "master", "bridge", "up")
            _run("ip", "-n", namespace, "address", "add", f"{self.host(node)}/24", "dev", "eth0")
            _run("ip", "-n", namespace, "link", "set", "eth0", "up")

    def _add(self, namespace: str) -> None:
        _run("ip", "netns", "add", namespace)
        self._made.append(namespace)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")


def _drop(hosts: Iterable[str]) -> list[str]:
    return [f"ip saddr {host} drop" for host in hosts]


def _loss(hosts: Iterable[str], percent: int) -> list[str]:
    return [f"ip saddr {host} numgen random mod 100 < {percent} drop" for host in hosts]


def _reset(side: str, hosts: Iterable[str]) -> list[str]:
    return [f"ip {side} {host} meta l4proto tcp reject with tcp reset" for host in hosts]


def _run(*command: str, script: str = "") -> None:
    subprocess.run(command, input=script.encode(), check=True, capture_output=True, timeout=20)
