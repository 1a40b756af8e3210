"""Links between real nodes that can be cut, slowed and mended while the nodes run.

Each node advertises the address of its link instead of its own peer port; the link relays TCP and UDP to
the node under conditions that are set per sender and receiver. Everything runs on a thread of its own::

    with Links(3) as links:
        with LocalCluster(directory, peer_advertise=links.addresses) as cluster:   # before it starts:
            links.lead_to(cluster.peer_addresses)
            ...
            links.cut_off(1)
            links.heal()

It speaks plain TCP only: under TLS it could not tell who calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import uvloop

from merganser.testing.conditions import CLEAR, Conditions, Cut
from merganser.testing.datagrams import DatagramLink
from merganser.testing.streams import Relay

ANSWER_TIMEOUT_S = 10.0
"""For the thread to do as it is told, and for the nodes to have met each other."""
BIND_TRIES = 100


class Links:
    """A link in front of each node; a context manager, whose methods any thread may call."""

    def __init__(
        self, nodes: int, *, host: str = "127.0.0.1", prepare_thread: Callable[[], None] | None = None, seed: int = 0
    ) -> None:
        """Prepare links for so many nodes.

        Args:
            nodes: how many.
            host: where the links listen.
            prepare_thread: called first on the thread of the links, to move it into a network namespace.
            seed: of jitter and loss.
        """
        self.addresses: tuple[str, ...] = ()
        """host:port of each link, for nodes to advertise; in ascending order, as nodes are numbered."""
        self._nodes = nodes
        self._host = host
        self._prepare_thread = prepare_thread
        self._rng = random.Random(seed)
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="links", daemon=True)
        self._targets: list[str | None] = [None] * nodes
        self._numbers: dict[str, int] = {}
        self._conditions: dict[tuple[int, int], Conditions] = {}
        self._relays: dict[Relay, None] = {}
        self._servers: list[asyncio.AbstractServer] = []
        self._datagrams: list[DatagramLink] = []
        self._have_all_met = asyncio.Event()

    def __enter__(self) -> Self:
        """Listen.

        Raises:
            OSError: the addresses cannot be had.
        """
        self._thread.start()
        try:
            self._do(self._listen())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection and end the thread."""
        self.close()

    def close(self) -> None:
        """Close every connection and end the thread."""
        if self._thread.is_alive():
            self._do(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(ANSWER_TIMEOUT_S)

    # What a test says.

    def lead_to(self, targets: Sequence[str]) -> None:
        """Relay to ``targets``, the host:port where each node listens for peers."""
        assert len(targets) == self._nodes

        async def change() -> None:
            self._targets = list(targets)

        self._do(change())

    def change(self, conditions: Conditions, *, sender: int, receiver: int) -> None:
        """Have ``conditions`` hold from now on for what ``sender`` sends to ``receiver``.

        Raises:
            TimeoutError: some node has not been heard of, so that its traffic could not be told apart.
        """

        async def change() -> None:
            async with asyncio.timeout(ANSWER_TIMEOUT_S / 2):
                await self._have_all_met.wait()
            self._conditions[sender, receiver] = conditions
            self._refresh()

        self._do(change())

    def change_all(self, conditions: Conditions) -> None:
        """Have ``conditions`` hold between all nodes."""
        for sender in range(self._nodes):
            for receiver in range(self._nodes):
                if sender != receiver:
                    self.change(conditions, sender=sender, receiver=receiver)

    def cut_off(self, node: int, how: Cut = Cut.SILENT) -> None:
        """Cut ``node`` off from all others, both ways."""
        for other in range(self._nodes):
            if other != node:
                self.change(Conditions(cut=how), sender=node, receiver=other)
                self.change(Conditions(cut=how), sender=other, receiver=node)

    def heal(self) -> None:
        """Have nothing more happen to anything."""

        async def change() -> None:
            self._conditions.clear()
            self._refresh()

        self._do(change())

    # What relays ask (`streams.Directory`).

    def number_of(self, node_id: str) -> int | None:
        """Return the number of a node, None if it has not been met."""
        return self._numbers.get(node_id)

    def number_at(self, address: tuple[str, int]) -> int | None:
        """Return the number of the node that listens, and sends datagrams, at ``address``."""
        text = f"{address[0]}:{address[1]}"
        return self._targets.index(text) if text in self._targets else None

    def met(self, node_id: str, number: int) -> None:
        """Take note of who is behind a link."""
        if self._numbers.get(node_id) != number:
            self._numbers[node_id] = number
            if len(set(self._numbers.values())) == self._nodes:
                self._have_all_met.set()

    def target(self, number: int) -> str | None:
        """Return host:port where a node listens."""
        return self._targets[number]

    def conditions(self, sender: int | None, receiver: int | None) -> Conditions:
        """Return what holds now."""
        if sender is None or receiver is None:
            return CLEAR
        return self._conditions.get((sender, receiver), CLEAR)

    # The thread.

    def _run(self) -> None:
        if self._prepare_thread is not None:
            self._prepare_thread()
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(ANSWER_TIMEOUT_S)

    async def _listen(self) -> None:
        pairs = [_bind_both(self._host) for _ in range(self._nodes)]
        pairs.sort(key=lambda pair: str(pair[0].getsockname()[1]))
        for number, (stream, datagrams) in enumerate(pairs):
            self._servers.append(await self._loop.create_server(partial(self._new_relay, number), sock=stream))
            self._datagrams.append(DatagramLink(self, number, datagrams, self._rng))
        self.addresses = tuple(f"{self._host}:{stream.getsockname()[1]}" for stream, _ in pairs)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for link in self._datagrams:
            link.close()
        relays = list(self._relays)
        for relay in relays:
            relay.abort()
        if relays:
            await asyncio.wait([relay.over for relay in relays], timeout=ANSWER_TIMEOUT_S / 2)

    def _new_relay(self, number: int) -> asyncio.Protocol:
        relay = Relay(self, number, self._rng)
        self._relays[relay] = None
        relay.over.add_done_callback(lambda _: self._relays.pop(relay, None))
        return relay.front

    def _refresh(self) -> None:
        for relay in list(self._relays):
            relay.refresh()


def _bind_both(host: str) -> tuple[socket.socket, socket.socket]:
    """Return a TCP and a UDP socket bound to the same free port, which has five digits."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(BIND_TRIES):
        stream = socket.socket(family)
        stream.bind((host, 0))
        port = stream.getsockname()[1]
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            if port >= 10_000:  # addresses are compared as text
                datagrams.bind((host, port))
                return stream, datagrams
        stream.close()
        datagrams.close()
    raise OSError(f"no port of {host} is free for TCP and UDP")
