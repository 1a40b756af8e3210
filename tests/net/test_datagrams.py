"""Datagrams over real UDP sockets: on the peer port's number, to names and numbers, lost without a word."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from merganser.model.ids import NodeId
from merganser.model.messages import Done, Reply, Request
from merganser.net.datagrams import DatagramPortError
from merganser.net.peers import Peers
from merganser.node.local_cluster import free_ports

ANN, BEN = NodeId("ann"), NodeId("ben")
DEADLINE_S = 5.0

Run = Callable[[Coroutine[Any, Any, None]], None]


async def _done(_sender: NodeId, _request: Request) -> Reply:
    return Done()


def peers(node: NodeId) -> Peers:
    def fail(error: BaseException) -> None:
        raise error

    return Peers(node, cluster_id="cluster", random=random.Random(1), handler=_done, on_error=fail)


def on_both_loops(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[Run], None]:
    """Make a test of a coroutine."""

    def test(run: Run) -> None:
        run(scenario())

    return test


def port_of(node: Peers) -> int:
    transport = node.datagrams._ports[0]._transport
    assert transport is not None
    port: int = transport.get_extra_info("sockname")[1]
    return port


class Pair:
    """Two nodes that know each other, at ``host``."""

    def __init__(self, host: str = "127.0.0.1", bind: str = "127.0.0.1") -> None:
        self.host, self.bind = host, bind
        self.ann, self.ben = peers(ANN), peers(BEN)
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def __aenter__(self) -> Pair:
        ports = [await node.listen(self.bind, 0) for node in (self.ann, self.ben)]
        self.ann.set_peers({BEN: f"{self.host}:{ports[1]}"})
        self.ben.set_peers({ANN: f"{self.host}:{ports[0]}"})
        self.ben.receive_datagram = self.heard.put_nowait
        async with asyncio.timeout(DEADLINE_S):  # asyncio loses sockets that are being accepted at a close
            while not (self.ann.connected()[BEN] and self.ben.connected()[ANN]):  # noqa: ASYNC110  # nothing tells
                await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.ann.close()
        await self.ben.close()

    async def next(self) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            return await self.heard.get()


@on_both_loops
async def test_a_datagram_arrives_at_the_number_of_the_peer_port() -> None:
    async with Pair() as pair:
        pair.ann.send_datagram(BEN, b"hello")
        assert await pair.next() == b"hello"
        assert (pair.ann.datagrams.sent, pair.ben.datagrams.received) == (1, 1)


@on_both_loops
async def test_a_name_is_resolved_and_what_is_sent_before_is_lost() -> None:
    async with Pair(host="localhost") as pair:
        async with asyncio.timeout(DEADLINE_S):
            while pair.heard.empty():
                pair.ann.send_datagram(BEN, b"hello")
                await asyncio.sleep(0)
        assert pair.ann.datagrams.unsent > 0


@on_both_loops
async def test_addresses_of_ip_version_6_work() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no ::1")
    async with Pair(host="[::1]", bind="::1") as pair:
        pair.ann.send_datagram(BEN, b"hello")
        assert await pair.next() == b"hello"


@on_both_loops
async def test_what_cannot_be_sent_is_counted_and_raises_nothing() -> None:
    async with Pair() as pair:
        pair.ann.send_datagram(NodeId("stranger"), b"hello")
        pair.ann.set_peers({BEN: "no.such.host.invalid:7700"})
        pair.ann.send_datagram(BEN, b"hello")
        pair.ann.set_peers({BEN: "[::1]:7700"})  # no socket of that family
        pair.ann.send_datagram(BEN, b"hello")
        assert pair.ann.datagrams.unsent == 3
        assert pair.ann.datagrams.sent == 0


@on_both_loops
async def test_a_peer_that_is_not_there_is_no_error_and_later_datagrams_go_elsewhere() -> None:
    async with Pair() as pair:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as nobody:
            nobody.bind(("127.0.0.1", 0))
            port = nobody.getsockname()[1]
        address = f"127.0.0.1:{port_of(pair.ben)}"
        pair.ann.set_peers({BEN: f"127.0.0.1:{port}"})
        for _ in range(3):
            pair.ann.send_datagram(BEN, b"lost")
            await asyncio.sleep(0)
        pair.ann.set_peers({BEN: address})
        pair.ann.send_datagram(BEN, b"hello")
        assert await pair.next() == b"hello"


@on_both_loops
async def test_garbage_from_anyone_reaches_the_receiver_as_it_is() -> None:
    async with Pair() as pair:
        port = port_of(pair.ben)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"\xff" * 9_000, ("127.0.0.1", port))
            stranger.sendto(b"", ("127.0.0.1", port))
        assert {len(await pair.next()), len(await pair.next())} == {9_000, 0}


@on_both_loops
async def test_a_udp_port_that_is_taken_is_an_error_of_its_own_and_the_tcp_port_is_given_back() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        (port,) = free_ports("127.0.0.1", 1)  # none that a connection of somebody else has at its own end
        taken.bind(("127.0.0.1", port))
        node = peers(ANN)
        with pytest.raises(DatagramPortError):
            await node.listen("127.0.0.1", port)
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))
        await node.close()


@on_both_loops
async def test_after_close_nothing_arrives_and_sending_is_no_error() -> None:
    async with Pair() as pair:
        await pair.ann.close()
        pair.ann.send_datagram(BEN, b"hello")
        assert pair.ann.datagrams.sent == 0
