"""The failure detector of whole members, simulated: who is believed alive, and what comes in from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from merganser.core.membership import Membership
from merganser.model.gossip import Claim, Packet, Ping, State
from merganser.model.ids import NodeId
from merganser.model.messages import Gossip, Gossiped
from merganser.net import packets
from merganser.service.failure_detector import MemberView
from merganser.sim.machine import Machine
from merganser.sim.network import Conditions
from merganser.sim.world import World
from service.plays import get, member, now_s, put, simulated, started

BOUND_S = 60.0


def view(observer: Machine, of: Machine) -> MemberView:
    return member(observer).failure_detector.view().members[node(of)]


def node(machine: Machine) -> NodeId:
    return machine._record.id


def is_believed(world: World, machine: Machine, *states: str) -> bool:
    """Tell whether all others that run believe ``machine`` to be in one of ``states``."""
    others = [other for other in world.machines if other is not machine and other.member and not other.is_paused]
    return all(view(other, machine).state in states for other in others)


async def eventually(is_so: Callable[[], bool], *, within_s: float = BOUND_S) -> float:
    """Return how long it took; fails if it took too long."""
    began_s = now_s()
    while not is_so():  # any condition
        assert now_s() - began_s < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.05)
    return now_s() - began_s


def all_alive(world: World) -> bool:
    return all(is_believed(world, machine, "alive") for machine in world.machines)


@simulated(machines=5)
async def test_a_crashed_machine_is_believed_dead_and_alive_again_when_it_is_back(world: World) -> None:
    await started(world)
    victim = world.machines[1]
    victim.crash()
    await eventually(lambda: is_believed(world, victim, "dead"))
    victim.start()
    await world.up(victim)
    await eventually(lambda: all_alive(world))


@simulated()
async def test_a_paused_machine_is_suspected_and_refutes_when_it_wakes(world: World) -> None:
    await started(world)
    victim = world.machines[2]
    victim.pause()
    await eventually(lambda: is_believed(world, victim, "suspect", "dead"))
    victim.resume()
    await eventually(lambda: all_alive(world), within_s=10.0)
    assert member(victim).failure_detector.view().incarnation >= 1
    assert all(view(other, victim).incarnation >= 1 for other in world.machines if other is not victim)


@simulated(machines=4)
async def test_a_slow_machine_is_not_declared_dead(world: World) -> None:
    await started(world)
    slow = world.machines[0]
    for _ in range(240):
        slow.pause()
        await asyncio.sleep(0.4)
        slow.resume()
        await asyncio.sleep(0.1)
        assert is_believed(world, slow, "alive", "suspect")


@simulated(machines=4)
async def test_an_isolated_machine_believes_all_dead_and_after_healing_all_believe_all_alive(world: World) -> None:
    await started(world)
    lonely = world.machines[3]
    world.cut_off(lonely)
    await eventually(lambda: is_believed(world, lonely, "dead"))
    await eventually(lambda: all(view(lonely, other).state == "dead" for other in world.machines[:3]))
    world.network.heal()
    await eventually(lambda: all_alive(world))


@simulated(machines=4)
async def test_in_a_storm_and_after_it_nobody_stays_doubted(world: World) -> None:
    await started(world)
    world.network.conditions = Conditions(delay_s=(0.001, 0.4), loss=0.4, duplication=0.3)
    await asyncio.sleep(60.0)
    world.network.heal()
    await eventually(lambda: all_alive(world))


def _packet(world: World, *, sender: Machine, claims: tuple[Claim, ...] = ()) -> bytes:
    cluster = member(sender).topology.map.cluster_id
    return packets.encode(cluster, Packet(member(sender).topology.node, 0, Ping(1), claims))


@simulated()
async def test_those_not_believed_alive_are_asked_last_and_requests_still_succeed(world: World) -> None:
    table = await started(world)
    one, other, third = world.machines
    asker = member(one).coordinator._asker
    claim = Claim(member(other).topology.node, State.DEAD, 0)
    member(one).failure_detector._hear(_packet(world, sender=third, claims=(claim,)))
    assert view(one, other).state == "dead"
    nodes = [member(machine).topology.node for machine in (other, third, one)]
    assert asker.nearest_first(nodes) == [nodes[2], nodes[1], nodes[0]]
    third.pause()
    await put(one, table, b"k", b"v")
    assert await get(one, table, b"k") == b"v"
    assert view(one, other).state == "alive", "its answer proved it"
    third.resume()


@simulated()
async def test_garbage_is_counted_and_does_no_harm(world: World) -> None:
    await started(world)
    detector = member(world.machines[0]).failure_detector
    before = detector.view().datagrams_ignored
    for data in (b"", b"GET / HTTP/1.1", b"\xff" * 1200, b"\x91" * 1200, b"x" * 60_000):
        detector._hear(data)
    assert detector.view().datagrams_ignored == before + 5
    assert all_alive(world)


@simulated()
async def test_a_packet_over_a_connection_is_answered_unless_it_lies_about_its_sender(world: World) -> None:
    await started(world)
    one, other, third = world.machines
    detector = member(one).failure_detector
    packet = Packet(member(other).topology.node, 0, Ping(7))
    answer = await detector.answer(member(other).topology.node, Gossip(packet))
    assert isinstance(answer, Gossiped)
    assert answer.packet is not None
    assert answer.packet.body.number == 7
    assert await detector.answer(member(third).topology.node, Gossip(packet)) == Gossiped(None)


# Planted bugs.


def a_paused_machine_comes_back() -> None:
    test_a_paused_machine_is_suspected_and_refutes_when_it_wakes()


def a_crashed_machine_is_found() -> None:
    test_a_crashed_machine_is_believed_dead_and_alive_again_when_it_is_back()


@pytest.mark.parametrize(
    ("method", "test"),
    [("_answer_claim", a_paused_machine_comes_back), ("_judge_suspicions", a_crashed_machine_is_found)],
    ids=["refutation in the same incarnation", "suspicion never expires"],
)
def test_a_planted_bug_is_found(method: str, test: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Membership, method, lambda _self, _what: None)
    with pytest.raises(AssertionError):
        test()
