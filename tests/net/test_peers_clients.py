"""Clients over loopback: told apart from nodes, served what is for them, and nothing else."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from typing import get_args

import pytest

from merganser.model import messages
from merganser.model.client_messages import CLIENT_REQUESTS, NOT_FOR_CLIENTS, FetchRing
from merganser.model.errors import PeerUnreachableError, RefusedError
from merganser.model.ids import NodeId
from merganser.model.messages import AskTime, FetchMap, Join, MapIs, Read, Reply, Request
from merganser.model.value_messages import Mint
from merganser.model.versions import CLIENTS_SINCE, NEWEST, Versions
from merganser.net.frame_bodies import Hello
from merganser.net.handshake import Identity
from merganser.net.limits import PeerLimits
from merganser.net.links import Links
from net.peers_by_hand import ANN, BEN, LONG_S, Run, peers, read, stranger_calls_on, until

IDA = NodeId("1" * 16)
served: list[Request] = []


async def note(sender: NodeId, request: Request) -> Reply:
    served.append(request)
    return MapIs(7, None)


@contextlib.asynccontextmanager
async def client(cluster_id: str = "", versions: Versions = Versions(CLIENTS_SINCE, NEWEST)) -> AsyncIterator[Links]:  # noqa: B008  # frozen
    links = Links(Identity(IDA, cluster_id, versions, is_client=True), random=random.Random(1), is_eager=False)
    try:
        yield links
    finally:
        await links.close()


def test_a_client_is_served_what_is_for_clients(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN, note) as ben, client() as ida:
            greeted: list[NodeId] = []
            ben.when_greeted = greeted.append
            address = f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"
            ida.set_peers({BEN: address})
            assert await ida.request(BEN, FetchRing(0), timeout_s=LONG_S) == MapIs(7, None)
            assert await ida.introduce(address, FetchRing(0), timeout_s=LONG_S) == MapIs(7, None)
            assert greeted == []  # nobody takes it for a node that is back

    run(scenario())


@pytest.mark.parametrize("request_", [read(), FetchMap(0), AskTime(), Mint(1, 1, b"k", False)], ids=repr)  # type: ignore[arg-type]
def test_a_client_is_refused_what_only_nodes_may_ask_and_goes_on(run: Run, request_: Request) -> None:
    async def scenario() -> None:
        served.clear()
        async with peers(BEN, note) as ben, client() as ida:
            ida.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
            with pytest.raises(RefusedError, match=f"may not ask a node for {type(request_).__name__}") as refused:
                await ida.request(BEN, request_, timeout_s=LONG_S)
            assert refused.value.code == NOT_FOR_CLIENTS
            assert await ida.request(BEN, FetchRing(0), timeout_s=LONG_S) == MapIs(7, None)
            assert served == [FetchRing(0)]

    run(scenario())


def test_no_message_between_nodes_is_for_clients() -> None:
    assert {kind.__module__ for kind in CLIENT_REQUESTS} == {"merganser.model.client_messages"}
    every = set(get_args(messages.Request))
    assert every >= CLIENT_REQUESTS
    assert {Read, Join, Mint, FetchMap} <= every - CLIENT_REQUESTS


def test_a_client_of_another_cluster_is_rejected_and_told_why(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN, cluster_id="two") as ben, client("one") as ida:
            ida.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
            with pytest.raises(PeerUnreachableError, match=f"client {IDA} belongs to cluster one and node {BEN} to tw"):
                await ida.request(BEN, FetchRing(0), timeout_s=LONG_S)

    run(scenario())


def test_a_client_of_an_older_release_is_served_where_nodes_of_that_release_are_not(run: Run) -> None:
    async def scenario() -> None:
        later = Versions(CLIENTS_SINCE, NEWEST + 3)
        async with peers(BEN, note, versions=later) as ben, client() as ida, peers(ANN) as ann:
            ben.require(NEWEST + 3)
            address = f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"
            ida.set_peers({BEN: address})
            ann.set_peers({BEN: address})
            assert await ida.request(BEN, FetchRing(0), timeout_s=LONG_S) == MapIs(7, None)
            with pytest.raises(PeerUnreachableError, match="run a newer release"):
                await ann.request(BEN, read(), timeout_s=LONG_S)

    run(scenario())


def test_a_node_that_knows_no_clients_rejects_them_before_they_ask_anything(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN, note, versions=Versions(2, CLIENTS_SINCE - 1)) as ben, client() as ida:
            ida.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
            with pytest.raises(PeerUnreachableError, match=f"client {IDA} speaks peer protocol {NEWEST}"):
                await ida.request(BEN, FetchRing(0), timeout_s=LONG_S)

    run(scenario())


def test_clients_leave_room_for_nodes(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN, note, limits=PeerLimits(clients_max=1)) as ben, client() as ida, client() as late:
            port = await ben.listen("127.0.0.1", 0)
            for one in ida, late:
                one.set_peers({BEN: f"127.0.0.1:{port}"})
            await ida.request(BEN, FetchRing(0), timeout_s=LONG_S)
            with pytest.raises(PeerUnreachableError, match="1 clients are connected, no more are taken: ask another"):
                await late.request(BEN, FetchRing(0), timeout_s=LONG_S)
            node = await stranger_calls_on(port, Hello(NEWEST, "cluster", ANN))
            await until(lambda: bool(node.heard()))
            assert isinstance(node.heard()[0], Hello)
            await ida.close()
            node.transport.abort()
            await until(lambda: len(ben._server.connections) == 0)
            assert ben._server.clients == 0

    run(scenario())


def test_a_client_opens_no_connection_before_it_needs_it(run: Run) -> None:
    async def scenario() -> None:
        async with peers(BEN, note) as ben, client() as ida:
            ida.set_peers({BEN: f"127.0.0.1:{await ben.listen('127.0.0.1', 0)}"})
            assert ida.is_reachable(BEN)
            assert ida.connected() == {BEN: False}
            await ida.request(BEN, FetchRing(0), timeout_s=LONG_S)
            assert ida.connected() == {BEN: True}

    run(scenario())
