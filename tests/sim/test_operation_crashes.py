"""Every operation, with a crash at every step of it: it ends as planned, and nothing is lost.

A step is a change of the cluster map. A run without a crash tells how many there are; then there is a run for each of
them in which a machine dies just when the first one knows of it, and starts again soon. Meanwhile somebody writes.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from merganser.core import reshaping
from merganser.core.cluster_map import node_by_id
from merganser.model.cluster import ClusterMap, Table
from merganser.model.errors import MerganserError
from merganser.model.ids import NodeId
from merganser.model.policy import Policy
from merganser.service.steps import WIRES
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from service.led import can_evaluate, payload_of
from service.plays import ALL, get, key_of, made_with_leaders, member, now_s, put, started, until

N, MACHINES, PARTITIONS, KEYS = 3, 4, 8, 12
DOWN_S = 0.5
WRITE_TIMEOUT_S = 1.0
END_S = 400.0
"""Of virtual time; a step that waits for somebody who is away is given up after 15 s, and tried again."""


class Case(msgspec.Struct, frozen=True):
    """An operation of a cluster of four, the fourth of which may be lost, and a fifth that may have joined."""

    kind: str
    source: int
    """The machine that loses something, or is to stand elsewhere, by position."""
    target: int
    """The one that gets something."""
    has_newcomer: bool = False
    is_lost: bool = False
    of: Callable[[list[NodeId]], dict[str, Any]] = lambda _nodes: {}
    """What is planned beside the kind, given the ids of the machines."""
    policy: Policy | None = None
    """That the table of items is to get; its number is that of the rows, too, so that it is forked first."""
    given_up: dict[int, float] = {}
    """Weights, by position, of an operation that was begun before, and cancelled before anything had moved."""


CASES = {
    case.kind: case
    for case in (
        Case("join", 1, 4, has_newcomer=True, of=lambda nodes: {"weights": {nodes[4]: 1.0}}),
        Case("leave", 3, 1, of=lambda nodes: {"gone": [nodes[3]]}),
        Case("remove", 0, 1, is_lost=True, of=lambda nodes: {"gone": [nodes[3]]}),
        Case(
            "replace",
            1,
            4,
            has_newcomer=True,
            is_lost=True,
            of=lambda nodes: {"gone": [nodes[3]], "successor": nodes[4]},
        ),
        Case("weights", 3, 1, of=lambda nodes: {"weights": {nodes[3]: 0.0}}),
        Case("zones", 1, 2, of=lambda nodes: {"zones": {nodes[1]: "b", nodes[3]: "b"}}),
        Case("split", 1, 2),
        Case("rebalance", 3, 1, given_up={3: 0.2}),
        Case("policy", 1, 2, policy=Policy(4)),
    )
}
ROLES = ("driver", "source", "target", "voter")


class Play:
    """One run of a case."""

    def __init__(self, world: World, case: Case) -> None:
        self.world = world
        self.case = case
        self.steps = 0
        self.acked: dict[bytes, bytes] = {}
        """By key of an item, as of the last write whose ack came."""
        self.doubtful: dict[bytes, set[bytes]] = {}
        """What else it may be: written since, with an unknown outcome."""
        self._outside = contextvars.copy_context()
        """Of no machine: what is to happen after a crash does not go down with the one that heard of the step."""
        self._seen: set[int] = set()
        self._crash_at = -1
        self._role = ""
        self._crashed: Machine | None = None

    def up(self) -> list[Machine]:
        return [machine for machine in self.world.machines if machine.member is not None]

    @property
    def lost(self) -> Machine | None:
        return self.world.machines[3] if self.case.is_lost else None

    async def run(self, role: str, crash_at: int) -> int:
        """Have the machine of ``role`` crash at a step, -1: none; return how many steps there were."""
        rows = await started(self.world)
        items = await made_with_leaders(self.world)
        if self.case.has_newcomer:
            self.world.add_machine()
            await self.world.start()
        await until(lambda: len({member(machine).topology.map.epoch for machine in self.world.machines}) == 1)
        nodes = [member(machine).topology.node for machine in self.world.machines]
        for number in range(KEYS):
            while not {key_of(table, b"%d" % number) for table in (items, rows)} <= self.acked.keys():
                await self._write(items, rows, number)
        if self.case.given_up:
            await self._give_up({nodes[place]: weight for place, weight in self.case.given_up.items()})
        if self.lost is not None:
            self.lost.crash()
        self._role, self._crash_at = role, crash_at
        for machine in self.up():
            self._watch(machine)
        writing = asyncio.get_running_loop().create_task(self._write_on(items, rows))

        def begun(newest: ClusterMap) -> ClusterMap:
            if self.case.policy is not None:
                plan = reshaping.planned_policy(newest, items.id, self.case.policy, operation_id="op", now_us=EPOCH_US)
            else:
                plan = reshaping.planned(
                    newest,
                    self.case.kind,  # type: ignore[arg-type]
                    operation_id="op",
                    now_us=EPOCH_US,
                    **self.case.of(nodes),
                )
            return reshaping.begun(newest, plan.operation, plan.weights)

        asked = self.world.machines[2]
        while self.steps < 2:  # whoever has asked may have died, and it is unknown whether it has begun: asked again
            asking = asked.spawn(member(asked).catalog.change(begun, deadline=now_s() + 5.0))
            await asyncio.wait([asking], timeout=5.0)  # of a machine that dies, tasks never end
            if asking.done() and not asking.cancelled() and asking.exception() is not None:
                assert isinstance(asking.exception(), MerganserError)
            await asyncio.sleep(2.0)
            asked = self.world.rng.choice(self.up())
        await until(self._is_over, timeout_s=END_S)
        writing.cancel()
        await asyncio.wait([writing])
        self._check_members(nodes)
        await self._check(items, rows)
        return self.steps

    async def _give_up(self, weights: dict[NodeId, float]) -> None:
        """Begin to give nodes other weights, and cancel that: they have them, and own what they owned."""

        def cancelled(newest: ClusterMap) -> ClusterMap:
            plan = reshaping.planned(newest, "weights", operation_id="before", now_us=EPOCH_US, weights=weights)
            return reshaping.cancelled(reshaping.begun(newest, plan.operation, plan.weights), "before")

        machine = self.world.machines[0]
        changed = await machine.spawn(member(machine).catalog.change(cancelled, deadline=now_s() + 5.0))
        await until(lambda: all(member(one).topology.map.epoch >= changed.epoch for one in self.world.machines))

    # Steps

    def _watch(self, machine: Machine) -> None:
        member(machine).topology.when_changed(self._step)

    def _step(self, current: ClusterMap) -> None:
        if current.epoch in self._seen:
            return
        self._seen.add(current.epoch)
        if self.steps == self._crash_at:
            asyncio.get_running_loop().call_soon(self._crash, self._victim(current), context=self._outside)
        self.steps += 1

    def _victim(self, current: ClusterMap) -> Machine:
        if self._role == "source":
            return self.world.machines[self.case.source]
        if self._role == "target":
            return self.world.machines[self.case.target]
        driver = self.up()[0].member
        assert driver is not None
        node = driver.rebalancer.driver()
        if self._role == "driver":
            return next(machine for machine in self.up() if member(machine).topology.node == node)
        voters = [machine for machine in self.up() if member(machine).topology.me.number in current.voters]
        return next(machine for machine in reversed(voters) if member(machine).topology.node != node)

    def _crash(self, victim: Machine) -> None:
        victim.crash()
        self._crashed = victim
        self.world.loop.call_later(DOWN_S, self._restart, victim, context=self._outside)

    def _restart(self, victim: Machine) -> None:
        victim.start()
        self._crashed = None

    def _is_over(self) -> bool:
        members = [machine.member for machine in self.up()]
        maps = [one.topology.map for one in members if one is not None and not one.topology.gone_at]
        is_settled = not any(one.operation or one.pending or one.settling for one in maps)
        is_known = len({one.epoch for one in maps}) == 1 and self.steps > 1
        if self._crashed is not None or not is_settled or not is_known:
            return False
        named = {node.id for node in maps[0].nodes}
        there = [one for one in members if one is not None and one.topology.node in named]
        return len(there) == len(named) and all(one.moving.leftovers.count() == 0 for one in there)

    # Writes

    async def _write_on(self, items: Table, rows: Table) -> None:
        number = 0
        while True:
            await self._write(items, rows, number % KEYS)
            number += 1
            await asyncio.sleep(0.05)

    async def _write(self, items: Table, rows: Table, number: int) -> None:
        name, value = b"%d" % number, b"%d" % self.world.rng.getrandbits(40)
        machine = self.world.rng.choice(self.up())
        can_evaluate(machine)
        for table in (items, rows):
            key = key_of(table, name)
            if table is items:
                leaders = member(machine).leader_tables.leader_based
                work = leaders.change(table, key, WIRES, payload_of("put", value), deadline=now_s() + WRITE_TIMEOUT_S)
                asked: asyncio.Future[Any] = machine.spawn(work)
            else:
                asked = asyncio.ensure_future(put(machine, table, name, value, timeout_s=WRITE_TIMEOUT_S))
            self.doubtful.setdefault(key, set()).add(value)
            await asyncio.wait([asked], timeout=2 * WRITE_TIMEOUT_S)
            if not asked.done():  # it died with its machine
                asked.cancel()
            elif not asked.cancelled() and asked.exception() is None:
                self.acked[key], self.doubtful[key] = value, set()
            elif not asked.cancelled() and not isinstance(asked.exception(), MerganserError):
                raise asked.exception() or AssertionError

    # The end

    def _check_members(self, nodes: list[NodeId]) -> None:
        """See that what was planned has come to be."""
        current = max((member(machine).topology.map for machine in self.up()), key=lambda one: one.epoch)
        owned = {node.id: current.owners.count(node.number) for node in current.nodes}
        assert current.partitions == (2 * PARTITIONS if self.case.kind == "split" else PARTITIONS)
        if self.case.kind in ("leave", "remove", "replace"):
            assert node_by_id(current, nodes[3]) is None
        if self.case.has_newcomer:
            assert owned[nodes[4]] > 0
        if self.case.kind == "weights":
            assert owned[nodes[3]] == 0
        if self.case.kind == "rebalance":
            assert 0 < owned[nodes[3]] < PARTITIONS // MACHINES
        if self.case.policy is not None:
            assert [current.policy_of(table).n for table in current.tables if table.has_leaders] == [self.case.policy.n]
            assert {current.policy_of(table).n for table in current.tables if not table.has_leaders} == {N}
        if self.case.kind == "zones":
            assert [node.zone for node in current.nodes if node.id in (nodes[1], nodes[3])] == ["b", "b"]

    async def _check(self, items: Table, rows: Table) -> None:
        """See that each item and row can be read, is what was acknowledged, and has all its copies, and no others."""
        there = {
            member(machine).topology.node: machine for machine in self.up() if not member(machine).topology.gone_at
        }
        one = next(iter(there.values()))
        topology = member(one).topology
        for table in (items, rows):
            for number in range(KEYS):
                name = b"%d" % number
                key = key_of(table, name)
                if table is items:
                    reading = member(one).leader_tables.leader_based.read(
                        table, key, is_consistent=True, deadline=now_s() + 30.0
                    )
                    found = (await one.spawn(reading)).value
                else:
                    found = await get(one, table, name, level=ALL)
                assert found == self.acked[key] or found in self.doubtful[key], (table.name, name)
                holders = set(topology.replicas(table, key))

                def copies(key: bytes = key) -> set[NodeId]:
                    return {node for node, machine in there.items() if machine.engine.get(key) is not None}

                def is_one(key: bytes = key) -> bool:
                    return len({machine.engine.get(key) for machine in there.values()} - {None}) == 1

                await until(lambda copies=copies, holders=holders: copies() == holders, timeout_s=1300.0)  # type: ignore[misc]
                await until(is_one, timeout_s=1300.0)


def played(kind: str, role: str = "driver", crash_at: int = -1) -> int:
    """Run a case; return how many steps it took."""
    steps: list[int] = []

    async def script(world: World) -> None:
        steps.append(await Play(world, CASES[kind]).run(role, crash_at))

    world = World(1, machines=MACHINES, partitions=PARTITIONS)
    world.run(script)
    assert world.errors() == []
    return steps[0]


@pytest.mark.parametrize(
    ("kind", "role", "crash_at"), [("join", "target", 2), ("leave", "driver", 1), ("split", "driver", 1)]
)
def test_an_operation_ends_though_a_machine_crashes_at_a_step_of_it(kind: str, role: str, crash_at: int) -> None:
    assert played(kind, role, crash_at) > crash_at


@pytest.mark.soak
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", CASES)
def test_an_operation_ends_whichever_step_a_machine_crashes_at(kind: str, role: str) -> None:
    crash_at, steps = 0, played(kind)
    assert steps >= 3
    while crash_at < steps:
        assert played(kind, role, crash_at) > crash_at, f"step {crash_at}"
        crash_at += 1
