"""Links between peers and datagrams: what is cut, held, reset and slowed, and for whom."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from merganser.model.errors import PeerLostError, PeerUnreachableError
from merganser.model.ids import NodeId
from merganser.model.messages import Found
from merganser.net.limits import PeerLimits
from merganser.net.peers import Peers
from merganser.testing.conditions import Conditions, Cut
from merganser.testing.links import Links
from net.peers_by_hand import ANN, BEN, CAT, LONG_S, SOON_S, echo, peers, read

NODES = (ANN, BEN, CAT)
LIMITS = PeerLimits(connect_timeout_s=0.2, backoff_max_s=0.05)


@pytest.fixture
def links() -> Iterator[Links]:
    with Links(3) as running:
        yield running


@contextlib.asynccontextmanager
async def three(links: Links) -> AsyncIterator[list[Peers]]:
    """Ann, Ben and Cat, who know each other by their links only, and have talked."""
    async with contextlib.AsyncExitStack() as stack:
        everybody = [await stack.enter_async_context(peers(node, echo, limits=LIMITS)) for node in NODES]
        links.lead_to([f"127.0.0.1:{await one.listen('127.0.0.1', 0)}" for one in everybody])
        for one in everybody:
            one.set_peers(dict(zip(NODES, links.addresses, strict=True)))
        for one in everybody:
            for node in NODES:
                if node != one._identity.node_id:
                    assert await one.request(node, read(), timeout_s=LONG_S) == Found(b"k")
        yield everybody


def play(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def hears(one: Peers, node: NodeId) -> None:
    """Return once a request to ``node`` is answered; the test's time bounds it."""
    while True:
        with contextlib.suppress(PeerLostError, PeerUnreachableError):
            await one.request(node, read(), timeout_s=LONG_S)
            return
        await asyncio.sleep(0.01)


async def is_lost(one: Peers, node: NodeId) -> None:
    """Return once the connection to ``node`` is gone."""
    while one.connected()[node]:  # noqa: ASYNC110  # there is no event to wait for
        await asyncio.sleep(0.01)


def test_node_that_is_cut_off_is_silent_while_the_others_talk_and_is_heard_again(links: Links) -> None:
    async def scenario() -> None:
        async with three(links) as (ann, ben, cat):
            links.cut_off(2)
            for one, node in ((ann, CAT), (ben, CAT), (cat, ANN)):
                with pytest.raises(PeerLostError, match="no answer in time"):
                    await one.request(node, read(), timeout_s=SOON_S)
            assert await ann.request(BEN, read(), timeout_s=LONG_S) == Found(b"k")
            links.heal()
            for one, node in ((ann, CAT), (ben, CAT), (cat, ANN)):
                assert await one.request(node, read(), timeout_s=LONG_S) == Found(b"k")

    play(scenario)


def test_what_was_sent_into_a_silent_cut_arrives_when_it_heals(links: Links) -> None:
    async def scenario() -> None:
        async with three(links) as (ann, _, _):
            links.change(Conditions(cut=Cut.SILENT), sender=0, receiver=1)
            waiting = ann.request(BEN, read(b"late"), timeout_s=LONG_S)
            links.heal()
            assert await waiting == Found(b"late")

    play(scenario)


def test_one_way_cut_lets_answers_and_requests_pass_the_other_way(links: Links) -> None:
    async def scenario() -> None:
        served: list[bytes] = []

        async def note(sender: NodeId, request: Any) -> Found:
            served.append(request.key)
            return Found(request.key)

        async with three(links) as (ann, ben, _):
            ann._server._handler = note
            links.change(Conditions(cut=Cut.SILENT), sender=0, receiver=1)
            with pytest.raises(PeerLostError):  # Ben's request arrives, Ann's answer does not
                await ben.request(ANN, read(b"from Ben"), timeout_s=SOON_S)
            assert served == [b"from Ben"]
            with pytest.raises(PeerLostError):
                await ann.request(BEN, read(), timeout_s=SOON_S)

    play(scenario)


def test_reset_breaks_connections_and_refuses_new_ones_until_it_heals(links: Links) -> None:
    async def scenario() -> None:
        async with three(links) as (ann, ben, _):
            links.cut_off(1, Cut.RESET)
            for one, node in ((ann, BEN), (ben, ANN)):
                await is_lost(one, node)
                with pytest.raises((PeerLostError, PeerUnreachableError)):
                    await one.request(node, read(), timeout_s=LONG_S)
            links.heal()
            await hears(ann, BEN)

    play(scenario)


def test_connection_that_was_not_there_before_a_silent_cut_cannot_be_made_in_it(links: Links) -> None:
    async def scenario() -> None:
        async with three(links) as (ann, _, _):
            links.cut_off(1, Cut.RESET)
            await is_lost(ann, BEN)
            links.cut_off(1)
            for _ in range(3):
                with pytest.raises((PeerLostError, PeerUnreachableError)):
                    await ann.request(BEN, read(), timeout_s=0.3)
            links.heal()
            await hears(ann, BEN)

    play(scenario)


def test_delay_holds_for_one_direction_of_one_pair(links: Links) -> None:
    async def scenario() -> None:
        async with three(links) as (ann, ben, _):
            links.change(Conditions(delay_s=0.3), sender=0, receiver=1)
            loop = asyncio.get_running_loop()
            for one, node in ((ann, BEN), (ben, ANN)):  # one way there or one way back
                began = loop.time()
                await one.request(node, read(), timeout_s=LONG_S)
                assert loop.time() - began >= 0.3
            with pytest.raises(PeerLostError):
                await ann.request(BEN, read(), timeout_s=0.1)
            assert await ann.request(CAT, read(), timeout_s=LONG_S) == Found(b"k")

    play(scenario)


def test_slow_link_delivers_everything_in_the_end(links: Links) -> None:
    async def scenario() -> None:
        async with three(links) as (ann, _, _):
            links.change(Conditions(bytes_per_s=4_000_000), sender=0, receiver=1)
            big = b"x" * 1_000_000
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert await ann.request(BEN, read(big), timeout_s=LONG_S) == Found(big)
            assert loop.time() - began >= 0.25

    play(scenario)


def test_peer_that_stopped_listening_is_told_from_one_that_is_silent(links: Links) -> None:
    async def scenario() -> None:
        async with three(links) as (ann, ben, _):
            await ben.close()
            await is_lost(ann, BEN)
            with pytest.raises((PeerLostError, PeerUnreachableError)):
                await ann.request(BEN, read(), timeout_s=LONG_S)

    play(scenario)


def test_links_that_never_met_a_node_do_not_pretend_to_cut_it_off(
    links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("merganser.testing.links.ANSWER_TIMEOUT_S", 0.2)
    with pytest.raises(TimeoutError):
        links.cut_off(0)


# Datagrams.


@pytest.fixture
def ends(links: Links) -> Iterator[list[socket.socket]]:
    """Sockets of three nodes that have met."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
        one.settimeout(5)
    links.lead_to([f"127.0.0.1:{one.getsockname()[1]}" for one in sockets])
    for number, node in enumerate(NODES):
        links.met(node, number)
    yield sockets
    for one in sockets:
        one.close()


def address(links: Links, number: int) -> tuple[str, int]:
    host, _, port = links.addresses[number].rpartition(":")
    return host, int(port)


def arrives(links: Links, ends: list[socket.socket], *, sender: int, receiver: int) -> bool:
    ends[sender].sendto(b"ping", address(links, receiver))
    ends[receiver].settimeout(0.2)
    try:
        return ends[receiver].recv(100) == b"ping"
    except TimeoutError:
        return False


def test_datagram_reaches_the_node_and_its_answer_comes_from_where_it_was_sent_to(
    links: Links, ends: list[socket.socket]
) -> None:
    ends[0].sendto(b"ping", address(links, 1))
    data, source = ends[1].recvfrom(100)
    assert data == b"ping"
    ends[1].sendto(b"ack", source)
    assert ends[0].recvfrom(100) == (b"ack", address(links, 1))


def test_cut_drops_the_datagrams_of_one_direction_and_their_answers(links: Links, ends: list[socket.socket]) -> None:
    links.change(Conditions(cut=Cut.SILENT), sender=0, receiver=1)
    assert not arrives(links, ends, sender=0, receiver=1)
    assert arrives(links, ends, sender=0, receiver=2)
    ends[1].sendto(b"ping", address(links, 0))
    ends[0].settimeout(5)
    _, source = ends[0].recvfrom(100)
    ends[0].sendto(b"ack", source)  # an answer to where it came from is cut as well
    ends[1].settimeout(0.2)
    with pytest.raises(TimeoutError):
        ends[1].recv(100)
    links.heal()
    assert arrives(links, ends, sender=0, receiver=1)


def test_share_of_datagrams_that_is_lost_is_the_one_asked_for(links: Links, ends: list[socket.socket]) -> None:
    links.change(Conditions(loss=0.5), sender=0, receiver=1)
    for _ in range(200):
        ends[0].sendto(b"x", address(links, 1))
    ends[1].settimeout(0.3)
    got = 0
    with contextlib.suppress(TimeoutError):
        while ends[1].recv(100):
            got += 1
    assert 60 < got < 140
