"""Replicas that compare what they hold become equal, without any read."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import combinations
from typing import Any, cast

import pytest

from merganser.core.hash_tree import LEAVES, STRETCHES
from merganser.core.token import TOKEN_MIN, token_of
from merganser.model.cluster import Table
from merganser.model.errors import RefusedError
from merganser.model.ids import NodeId, PartitionId, TableId, Token
from merganser.model.messages import (
    ListKeys,
    LookAgain,
    LookAtTree,
    LookAtTwigs,
    Meet,
    Region,
    Reply,
    Request,
    Tally,
    TallyTogether,
)
from merganser.model.versions import Versions
from merganser.service.anti_entropy import Comparison
from merganser.service.hash_trees import Change
from merganser.service.partition_gate import STALE_EPOCH
from merganser.sim.machine import EPOCH_US
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.values import encode_row
from service.comparisons import (
    ask,
    compare,
    in_one_partition,
    lose,
    partition_of,
    reach_horizon,
    row_of,
    rows_met,
    same_bytes,
    synchronise,
)
from service.plays import (
    held,
    holders,
    key_of,
    member,
    now_s,
    plant,
    play,
    put,
    replicas_of,
    settled,
    simulated,
    started,
    until,
)

# What travels


@simulated()
async def test_what_one_replica_alone_holds_is_on_both_after_a_comparison(world: World) -> None:
    table = await started(world)
    one, other, third = world.machines
    plant(one, table, b"k", row_of(b"v"))
    compared = await compare(one, other, table, b"k")
    assert (compared.problem, compared.differing, compared.met_here, compared.met_there) == (None, 1, 0, 1)
    assert holders(world, table, b"k") == [one.address, other.address]
    assert held(other, table, b"k") == row_of(b"v")
    compared = await compare(third, other, table, b"k")
    assert (compared.problem, compared.differing, compared.met_here, compared.met_there) == (None, 1, 1, 0)
    assert await compare(one, third, table, b"k") == Comparison(0, 0, 0, 0, 0, (), 8, 12, None)


@simulated()
async def test_only_keys_that_differ_travel(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    names = in_one_partition(one, table, 500)
    for name in names:
        for machine in one, other:
            plant(machine, table, name, row_of(b"x" * 1000))
    changed = {key_of(table, name) for name in names[:3]}
    plant(one, table, names[0], row_of(b"y" * 1000, writer=2))
    plant(other, table, names[1], row_of(b"y" * 1000, writer=2))
    lose(other, table, names[2])
    met = rows_met(other)
    compared = await compare(one, other, table, names[0])
    assert {key for request in met for key, _ in request.rows} == changed
    assert (compared.problem, compared.differing, compared.met_here, compared.met_there) == (None, 3, 1, 2)
    assert compared.listed < 10
    assert compared.sent_bytes + compared.received_bytes < 4 * 1000 + 6_000
    assert all(one.engine.get(key) == other.engine.get(key) for key in changed)


@simulated()
async def test_of_a_wide_partition_key_only_buckets_that_differ_are_listed(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    wanted = [keys.row_key(table.id, token_of(b"wide"), b"wide", b"%05d" % number) for number in range(3_000)]
    for machine in one, other:
        changes: list[Change] = [(table.id, key, None, encode_row(key, row_of(b"v"))) for key in wanted]
        member(machine).trees.write(changes)
    newer = encode_row(wanted[7], row_of(b"w", writer=2))
    member(other).trees.write([(table.id, wanted[7], other.engine.get(wanted[7]), newer)])
    compared = await compare(one, other, table, b"wide")
    assert (compared.problem, compared.differing, compared.met_here) == (None, 1, 1)
    assert 1 <= compared.listed <= 40
    assert one.engine.get(wanted[7]) == newer


@simulated(partitions=4)
async def test_of_a_large_partition_only_twigs_that_differ_are_gone_through(world: World) -> None:
    asked = await differences_met(world)
    assert asked[LookAtTwigs] == 2, "of 32 leaves at a time"
    assert asked[TallyTogether] == 1
    assert asked[Tally] == 0


@simulated(partitions=4)
async def test_a_peer_that_has_no_twigs_counts_them_from_its_rows(world: World) -> None:
    world.machines[1].twigs_from_rows = 10**6
    asked = await differences_met(world)
    assert asked[LookAtTwigs] == 2


@simulated(partitions=4)
async def test_one_that_has_no_twigs_goes_through_leaves(world: World) -> None:
    world.machines[0].twigs_from_rows = 10**6
    asked = await differences_met(world)
    assert asked[LookAtTwigs] == 0
    assert asked[TallyTogether] == 2


@simulated(partitions=4)
async def test_a_peer_of_an_earlier_version_is_asked_as_it_ever_was(world: World) -> None:
    world.machines[1].versions = Versions(newest=3)
    asked = await differences_met(world)
    assert asked[LookAtTwigs] == asked[TallyTogether] == 0
    assert asked[Tally] == 40


async def differences_met(world: World) -> Counter[type]:
    """Let two replicas of forty leaves of ten rows each, in which one row differs, meet; return what was asked."""
    table = await started(world)
    one, other, _ = world.machines
    wanted = [
        keys.row_key(table.id, Token(TOKEN_MIN + (leaf << 52) + (row % 2 << 50)), b"%d" % row)
        for leaf in range(40)
        for row in range(20)
    ]
    newer = set(wanted[7::20])
    changes: list[Change] = [(table.id, key, None, encode_row(key, row_of(b"v"))) for key in wanted]
    for machine in one, other:
        member(machine).trees.write(changes)
    for key in newer:
        after = encode_row(key, row_of(b"w", writer=2))
        member(one).trees.write([(table.id, key, one.engine.get(key), after)])
    await asyncio.sleep(5.0)  # trees come to have twigs
    asked: Counter[type] = Counter()
    serve = member(other)._serve
    for kind, answer in list(serve.items()):

        async def noted(sender: NodeId, request: Any, *, answer: Any = answer, kind: type = kind) -> Reply:
            asked[kind] += 1
            return cast("Reply", await answer(sender, request))

        serve[kind] = noted
    peer = member(other).topology.node
    compared = await member(one).anti_entropy.compare(table, PartitionId(0), peer, deadline=now_s() + 60)
    assert (compared.problem, compared.differing, compared.met_there) == (None, len(newer), len(newer))
    assert {key: other.engine.get(key) for key in wanted} == {key: one.engine.get(key) for key in wanted}
    assert compared.listed <= 3 * len(newer)
    return asked


@simulated()
async def test_rows_as_large_as_can_be_travel_in_messages_of_bounded_size(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    names = in_one_partition(one, table, 24)
    for name in names:
        plant(one if name in names[::2] else other, table, name, row_of(b"x" * 400_000))
    met = rows_met(other)
    compared = await compare(one, other, table, names[0])
    assert (compared.problem, compared.differing, compared.met_here, compared.met_there) == (None, 24, 12, 12)
    assert max(sum(len(row or b"") for _, row in request.rows) for request in met) < 2 * 400_000 + 100_000
    assert compared.sent_bytes < 12 * 400_000 + 20_000, "nothing is sent twice"
    assert compared.received_bytes < 12 * 400_000 + 20_000


@simulated()
async def test_a_dry_run_counts_and_changes_nothing(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    plant(one, table, b"k", row_of(b"v"))
    compared = await compare(one, other, table, b"k", is_dry_run=True)
    assert (compared.problem, compared.differing, compared.met_there) == (None, 1, 0)
    assert holders(world, table, b"k") == [one.address]


# Writes in flight


@simulated()
async def test_a_write_in_flight_is_not_met(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    plant(one, table, b"k", row_of(b"v"))
    met = rows_met(other)
    comparing = asyncio.ensure_future(compare(one, other, table, b"k"))
    await asyncio.sleep(0.3)
    plant(other, table, b"k", row_of(b"v"))
    compared = await comparing
    assert (compared.problem, compared.differing, compared.in_flight, met) == (None, 0, 1, [])


@simulated()
async def test_synchronising_takes_what_is_in_flight_too(world: World) -> None:
    table = await started(world)
    one, other, _ = world.machines
    plant(one, table, b"k", row_of(b"v"))
    plant(other, table, b"l", row_of(b"v"))
    began_s = now_s()
    for name in b"k", b"l":
        await synchronise(one, other, table, name)
    assert now_s() - began_s < 1.0
    for name in b"k", b"l":
        assert held(one, table, name) == held(other, table, name) == row_of(b"v")


@simulated()
async def test_writes_go_on_while_replicas_compare_and_none_is_lost(world: World) -> None:
    table = await started(world)
    one, other, third = world.machines
    names = in_one_partition(one, table, 60)
    written: dict[bytes, bytes] = {}

    async def write() -> None:
        for number in range(400):
            name = world.rng.choice(names)
            await put(world.rng.choice(world.machines), table, name, b"%d" % number)
            written[name] = b"%d" % number

    async def compare_all() -> None:
        while not writing.done():
            machine, peer = world.rng.sample(world.machines, 2)
            await synchronise(machine, peer, table, names[0])
            await compare(machine, peer, table, names[0])

    writing = asyncio.ensure_future(write())
    await asyncio.gather(writing, compare_all(), compare_all())
    await settled(world)
    for machine, peer in ((one, other), (one, third), (one, other)):
        await synchronise(machine, peer, table, names[0])
    assert same_bytes(world, table, names)
    for name, value in written.items():
        row = held(one, table, name)
        assert row is not None
        assert row.cells[0].value == value


# Horizons


@pytest.mark.parametrize("stale_begins", [False, True])
def test_what_an_authority_has_purged_goes_and_what_is_newer_stays(stale_begins: bool) -> None:
    async def script(world: World) -> None:
        table = await started(world)
        authority, stale, _ = world.machines
        buried, newer, tombstone, kept = in_one_partition(authority, table, 4)
        plant(stale, table, buried, row_of(b"old", seconds_ago=60))
        plant(stale, table, newer, row_of(b"new"))
        plant(stale, table, tombstone, row_of(None, seconds_ago=60))
        for machine in authority, stale:
            plant(machine, table, kept, row_of(b"kept", seconds_ago=60))
        await reach_horizon(authority, table, buried, EPOCH_US - 5_000_000)
        compared = await compare(*((stale, authority) if stale_begins else (authority, stale)), table, buried)
        assert compared.problem is None
        assert held(stale, table, buried) is None
        assert held(authority, table, buried) is None
        assert held(authority, table, newer) == held(stale, table, newer) == row_of(b"new")
        assert held(stale, table, tombstone) == row_of(None, seconds_ago=60), "until its own horizon has passed it"
        assert held(authority, table, tombstone) is None
        assert held(authority, table, kept) == held(stale, table, kept) == row_of(b"kept", seconds_ago=60)

    play(script)


# Who may ask


@simulated()
async def test_another_epoch_is_refused(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    epoch, partition = member(machine).topology.map.epoch, partition_of(machine, table, b"k")
    for other in (epoch - 1, epoch + 1):
        with pytest.raises(RefusedError) as refused:
            await ask(machine, LookAtTree(other, table.id, partition, 0, (0,)))
        assert refused.value.code == STALE_EPOCH


@simulated(machines=5)
async def test_partitions_of_others_are_refused_and_not_asked_about(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    outsider = next(machine for machine in world.machines if machine not in replicas)
    compared = await compare(replicas[0], outsider, table, b"k")
    assert compared.problem is not None
    assert "holds no replica" in compared.problem
    compared = await compare(outsider, replicas[0], table, b"k")
    assert compared.problem is not None
    assert "holds no replica" in compared.problem


def nonsense(table: Table, epoch: int, partition: PartitionId, key: bytes) -> list[Request]:
    """Return questions that no node asks."""
    place = (epoch, table.id, partition)
    row = encode_row(key, row_of(b"v"))
    elsewhere = keys.row_key(TableId(table.id + 1), token_of(b"k"), b"k")
    other_partition = keys.row_key(table.id, Token(~keys.token_in(key)), b"k")
    return [
        LookAtTree(*place, -1, (0,)),
        LookAtTree(*place, 3, (0,)),
        LookAtTree(*place, 0, (1,)),
        LookAtTree(*place, 2, (1024,)),
        LookAtTree(*place, 2, (-1,)),
        LookAtTree(*place, 1, (0,) * 33),
        LookAtTree(epoch, table.id, PartitionId(-1), 0, (0,)),
        LookAtTree(epoch, table.id, PartitionId(1 << 70), 0, (0,)),
        Tally(*place, 0, 3, b""),
        Tally(*place, 0, 1 << 40, b""),
        Tally(*place, STRETCHES, 1, b""),
        LookAtTwigs(*place, ()),
        LookAtTwigs(*place, (LEAVES,)),
        LookAtTwigs(*place, (2, 1)),
        LookAtTwigs(*place, tuple(range(33))),
        TallyTogether(*place, (), ()),
        TallyTogether(*place, (1, 2), (4,)),
        TallyTogether(*place, (1, STRETCHES), (4, 4)),
        TallyTogether(*place, (1, 2), (4, 3)),
        TallyTogether(*place, (1, 2), (4096, 4096)),
        Tally(*place, -1, 1, b""),
        ListKeys(*place, (), b""),
        ListKeys(*place, (Region(STRETCHES),), b""),
        ListKeys(*place, (Region(1), Region(1024)), b""),
        ListKeys(*place, (Region(1, 4, (9,)),), b""),
        ListKeys(*place, (Region(1), Region(1)), b""),
        LookAgain(*place, ()),
        LookAgain(*place, (b"",)),
        LookAgain(*place, (key, key)),
        LookAgain(*place, (elsewhere,)),
        LookAgain(*place, (other_partition,)),
        LookAgain(*place, (key + b"x" * 100_000,)),
        LookAgain(*place, tuple(key + b"%d" % number for number in range(2000))),
        Meet(*place, 0, ()),
        Meet(*place, -1, ((key, row),)),
        Meet(*place, 0, ((key, row), (key, row))),
        Meet(*place, 0, ((key, row[:-1]),)),
        Meet(*place, 0, ((key, b""),)),
        Meet(*place, 0, ((b"k", None),)),
        Meet(*place, 0, ((other_partition, encode_row(other_partition, row_of(b"v"))),)),
        Meet(*place, 0, tuple((key + b"%d" % number, None) for number in range(300))),
    ]


@simulated()
async def test_questions_that_make_no_sense_are_refused_and_change_nothing(world: World) -> None:
    table = await started(world)
    machine = world.machines[0]
    partition = partition_of(machine, table, b"k")
    for question in nonsense(table, member(machine).topology.map.epoch, partition, key_of(table, b"k")):
        with pytest.raises(RefusedError):
            await ask(machine, question)
    assert list(machine.engine.scan(*keys.table_range(table.id))) == []


# By itself


@simulated(machines=4)
async def test_every_two_replicas_compare_every_partition_once_per_interval(world: World) -> None:
    for machine in world.machines:
        machine.repair_interval_s = 60.0
    table = await started(world)
    asked: Counter[tuple[PartitionId, frozenset[str]]] = Counter()
    for machine in world.machines:
        serve, me = member(machine)._serve, member(machine).topology.node
        answer = serve[LookAtTree]

        async def noted(sender: NodeId, request: LookAtTree, *, answer: Any = answer, me: NodeId = me) -> Reply:
            if request.level == 0:
                asked[request.partition, frozenset((sender, me))] += 1
            return cast("Reply", await answer(sender, request))

        serve[LookAtTree] = noted
    await asyncio.sleep(62.0)
    ring = member(world.machines[0]).topology.ring
    pairs = {
        (PartitionId(partition), frozenset(pair))
        for partition in range(ring.partitions)
        for pair in combinations(ring.preference_list(PartitionId(partition), table.n), 2)
    }
    assert asked.keys() == pairs
    asked.clear()
    await asyncio.sleep(62.0)
    assert asked.keys() == pairs
    assert max(asked.values()) <= 2
    for machine in world.machines:
        oldest_us = member(machine).anti_entropy.oldest_comparison_us(table)
        assert oldest_us is not None
        assert machine.wall_us() - oldest_us < 62_000_000


@simulated()
async def test_a_comparison_that_failed_is_tried_again_soon(world: World) -> None:
    for machine in world.machines:
        machine.repair_interval_s = 10.0
    table = await started(world)
    away = world.machines[2]
    away.crash()
    await asyncio.sleep(30.0)
    for number in range(30):
        plant(world.machines[0], table, b"k%d" % number, row_of(b"v"))
    await world.start()
    await until(lambda: all(held(away, table, b"k%d" % number) for number in range(30)), timeout_s=40.0)
