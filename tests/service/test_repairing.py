"""A repair on demand leaves all replicas of a partition equal, if all could be compared."""

from __future__ import annotations

import pytest

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.ids import PartitionId
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service import damage as damage_module
from merganser.service.repairing import Repaired
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from service.plays import ALL, damage, held, member, now_s, plant, put, replicas_of, simulated, started

NAME = b"k"
NEWER = Row((Cell(b"value", Timestamp(EPOCH_US + 5_000_000, 1), b"newer"),))


async def repair(machine: Machine, table: Table, *, is_dry_run: bool = False) -> Repaired:
    partition = PartitionId(member(machine).topology.ring.partition_of(token_of(NAME)))
    work = member(machine).repairing.repair(table, partition, deadline=now_s() + 60, is_dry_run=is_dry_run)
    return await machine.spawn(work)


@simulated()
async def test_what_the_last_peer_alone_held_reaches_the_first(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, NAME, b"v", level=ALL)
    here, first, last = replicas_of(world, table, NAME)
    forget_tree(last, table)
    plant(last, table, NAME, NEWER)
    done = await repair(here, table)
    assert [peer.problem for peer in done.peers.values()] == [None, None]
    assert held(here, table, NAME) == held(first, table, NAME) == held(last, table, NAME) == NEWER
    assert sum(peer.met_there for peer in done.peers.values()) == 1


@simulated()
async def test_a_dry_run_only_counts(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, NAME, b"v", level=ALL)
    here, _, last = replicas_of(world, table, NAME)
    forget_tree(last, table)
    plant(last, table, NAME, NEWER)
    damage(here, table, NAME)
    done = await repair(here, table, is_dry_run=True)
    assert (done.damaged, done.healed) == (1, 0)
    assert sum(peer.met_here + peer.met_there for peer in done.peers.values()) == 0
    assert held(last, table, NAME) == NEWER


@simulated()
async def test_what_cannot_be_healed_is_told_with_the_reason(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, NAME, b"v", level=ALL)
    here, _, last = replicas_of(world, table, NAME)
    damage(here, table, NAME)
    world.cut_off(last)
    done = await repair(here, table)
    assert (done.damaged, done.healed) == (1, 0)
    assert member(last).topology.node in done.problems[0]
    world.network.heal()
    done = await repair(here, table)
    assert (done.damaged, done.healed, done.problems) == (1, 1, ())


def forget_tree(machine: Machine, table: Table) -> None:
    """Have the tree counted anew: what a test plants goes past it."""
    member(machine).trees._kept.forget_all()
    assert table.n


def test_what_is_overlooked_is_not_told_as_healed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage_module, "WAITING_MAX", 0)

    @simulated()
    async def overlooked(world: World) -> None:
        table = await started(world)
        await put(world.machines[0], table, NAME, b"v", level=ALL)
        here = replicas_of(world, table, NAME)[0]
        damage(here, table, NAME)
        done = await repair(here, table)
        assert (done.damaged, done.healed, len(done.problems)) == (1, 0, 1)

    overlooked()
