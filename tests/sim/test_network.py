"""The simulated network: what is lost, repeated and late, and who hears what."""

from __future__ import annotations

import asyncio
import random

import pytest

from merganser.model.errors import CorruptionError, PeerLostError, PeerUnreachableError, RefusedError
from merganser.model.ids import NodeId
from merganser.model.messages import Done, FetchMap, MapIs, Reply, Request
from merganser.sim.loop import Incarnation, SimulatedLoop
from merganser.sim.network import Conditions, SimulatedNetwork, SimulatedTransport

A, B = NodeId("a"), NodeId("b")


class Pair:
    """Two machines on a network; b notes whom it heard and answers with a number that grows."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.loop = SimulatedLoop(self.rng)
        self.network = SimulatedNetwork(self.loop, self.rng)
        self.heard: list[NodeId] = []
        self.a = self.begin(A)
        self.b = self.begin(B)

    def begin(self, node: NodeId) -> SimulatedTransport:
        """Start a life of ``node``."""
        transport = SimulatedTransport(self.network, Incarnation(node), f"{node}:1", node, self.rng)
        transport.set_peers({A: "a:1", B: "b:1"})
        transport.serve(self.answer)
        return transport

    async def answer(self, sender: NodeId, request: Request) -> Reply:
        assert request == FetchMap(3)
        self.heard.append(sender)
        return MapIs(len(self.heard), None)

    def ask(self, *, timeout_s: float = 1.0) -> asyncio.Future[Reply]:
        return self.a.request(B, FetchMap(3), timeout_s=timeout_s)


def test_a_request_is_answered_and_says_who_asked() -> None:
    pair = Pair()

    async def script() -> None:
        assert await pair.ask() == MapIs(1, None)

    pair.loop.run(script())
    assert pair.heard == [A]


def test_a_lost_message_is_told_as_lost_at_the_deadline() -> None:
    pair = Pair()

    async def script() -> None:
        pair.network.conditions = Conditions(loss=1.0)
        with pytest.raises(PeerLostError):
            await pair.ask(timeout_s=2.5)
        assert pair.loop.time() == 2.5
        pair.network.heal()
        assert await pair.ask() == MapIs(1, None)

    pair.loop.run(script())
    assert pair.network.lost == 1


def test_about_as_many_messages_are_lost_and_repeated_as_asked_for() -> None:
    pair = Pair()

    async def script() -> None:
        pair.network.conditions = Conditions(loss=0.5)
        await asyncio.gather(*(pair.ask() for _ in range(400)), return_exceptions=True)
        assert 150 < len(pair.heard) < 250
        pair.heard.clear()
        pair.network.conditions = Conditions(duplication=0.5)
        await asyncio.gather(*(pair.ask() for _ in range(400)))
        assert 550 < len(pair.heard) < 650

    pair.loop.run(script())


def test_a_repeated_request_is_served_twice_and_answered_once() -> None:
    pair = Pair()

    async def script() -> None:
        pair.network.conditions = Conditions(duplication=1.0)
        await pair.ask()
        await asyncio.sleep(1.0)

    pair.loop.run(script())
    assert pair.heard == [A, A]
    assert pair.loop.errors == []


def test_a_cut_is_one_way() -> None:
    pair = Pair()

    async def script() -> None:
        pair.network.cut("b:1", "a:1")
        with pytest.raises(PeerLostError):
            await pair.ask()
        assert pair.heard == [A], "the request arrived, the reply did not"
        pair.network.heal()
        pair.network.cut("a:1", "b:1")
        with pytest.raises(PeerLostError):
            await pair.ask()
        assert pair.heard == [A]
        assert pair.a.is_reachable(B), "a cut link is found out by nobody"

    pair.loop.run(script())


def test_a_machine_that_is_known_to_be_dead_cannot_be_reached() -> None:
    pair = Pair()

    async def script() -> None:
        pair.b.incarnation.is_dead = True
        assert not pair.a.is_reachable(B)
        with pytest.raises(PeerUnreachableError, match="nobody listens at b:1"):
            await pair.ask()
        assert pair.loop.time() == 0.0
        assert not pair.a.is_reachable(NodeId("unknown"))

    pair.loop.run(script())


def test_replies_to_an_earlier_life_do_not_match_a_question_of_the_next() -> None:
    for seed in range(50):
        pair = Pair(seed)

        async def script(pair: Pair = pair) -> None:
            pair.network.conditions = Conditions(delay_s=(0.1, 0.1))
            for _ in range(20):
                pair.ask()
            await asyncio.sleep(0.15)  # the replies are on their way
            pair.a.incarnation.is_dead = True
            pair.a = pair.begin(A)
            asked = [pair.ask() for _ in range(20)]
            replies = await asyncio.gather(*asked)
            assert sorted(reply.epoch for reply in replies if isinstance(reply, MapIs)) == list(range(21, 41))

        pair.loop.run(script())


def test_messages_overtake_one_another() -> None:
    pair = Pair()

    async def script() -> None:
        replies = await asyncio.gather(*(pair.ask() for _ in range(20)))
        epochs = [reply.epoch for reply in replies if isinstance(reply, MapIs)]
        assert sorted(epochs) == list(range(1, 21))
        assert epochs != sorted(epochs)

    pair.loop.run(script())


def test_what_a_handler_raises_comes_back_as_a_refusal_with_code_and_epoch() -> None:
    pair = Pair()

    async def refuse(_sender: NodeId, _request: Request) -> Reply:
        raise RefusedError("no_such_table", "no table", map_epoch=7)

    async def fail(_sender: NodeId, _request: Request) -> Reply:
        raise CorruptionError("damaged")

    async def script() -> None:
        pair.b.serve(refuse)
        with pytest.raises(RefusedError, match="no table") as refused:
            await pair.ask()
        assert (refused.value.code, refused.value.map_epoch) == ("no_such_table", 7)
        pair.b.serve(fail)
        with pytest.raises(RefusedError, match="damaged") as failed:
            await pair.ask()
        assert failed.value.code == "corruption"

    pair.loop.run(script())


def test_a_machine_that_answers_too_late_is_lost_and_its_reply_ignored() -> None:
    pair = Pair()

    async def slow(_sender: NodeId, _request: Request) -> Reply:
        await asyncio.sleep(2.0)
        return Done()

    async def script() -> None:
        pair.b.serve(slow)
        with pytest.raises(PeerLostError):
            await pair.ask(timeout_s=1.0)
        await asyncio.sleep(5.0)

    pair.loop.run(script())
    assert pair.loop.errors == []
