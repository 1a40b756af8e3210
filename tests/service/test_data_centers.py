"""Tables in several data centres: which replicas count, who is asked, and who keeps what."""

from __future__ import annotations

import pytest

from merganser.model.cluster import Table
from merganser.model.consistency import Consistency, WriteQuorums
from merganser.model.errors import RefusedError, RequestError, UnavailableError, UnknownOutcomeError
from merganser.model.policy import Policy
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from service.hints import drained, hint, number, row
from service.plays import get, holders, key_of, member, put, replicas_of, simulated, until

LOCAL, EACH, ANY = Consistency.LOCAL_QUORUM, Consistency.EACH_QUORUM, Consistency.ANY
BOTH = Policy(6, replicas=(("dc-0", 3), ("dc-1", 3)))
TWO_OF_EACH = Policy(4, replicas=(("dc-0", 2), ("dc-1", 2)))
ONE_SIDE = Policy(2, replicas=(("dc-0", 2),))
NOT_DONE = (UnavailableError, UnknownOutcomeError)


async def started(world: World, policy: Policy) -> tuple[Table, list[Machine], list[Machine]]:
    """Return a table that all know, and the machines of either data centre."""
    await world.start()
    table = await world.table(policy=policy)
    await until(lambda: all(member(machine).topology.table(table.id) for machine in world.machines))
    near, far = ([m for m in world.machines if m.data_center == name] for name in ("dc-0", "dc-1"))
    return table, near, far


def keepers_of_any(world: World) -> list[Machine]:
    return [machine for machine in world.machines if list(machine.engine.scan(*keys.all_hints_range()))]


def cut(world: World, some: list[Machine], others: list[Machine]) -> None:
    for one in some:
        for other in others:
            world.network.cut(one.address, other.address)
            world.network.cut(other.address, one.address)


@simulated(machines=6, data_centers=2)
async def test_each_side_goes_on_by_itself_at_local_levels(world: World) -> None:
    table, near, far = await started(world, BOTH)
    cut(world, near, far)
    for side in near, far:
        value = side[0].data_center.encode()
        await put(side[0], table, b"k", value, level=LOCAL)
        assert await get(side[1], table, b"k", level=LOCAL) == value
        for level in EACH, Consistency.QUORUM:
            with pytest.raises(NOT_DONE):
                await put(side[0], table, b"other", b"v", level=level)
    world.network.heal()
    await drained(world)
    assert {await get(machine, table, b"k", level=LOCAL) for machine in world.machines} == {b"dc-1"}


@simulated(machines=6, data_centers=2)
async def test_each_quorum_is_seen_by_the_local_quorums_of_all(world: World) -> None:
    table, near, far = await started(world, BOTH)
    await put(near[0], table, b"k", b"v", level=EACH)
    cut(world, near, far)
    for machine in world.machines:
        assert await get(machine, table, b"k", level=LOCAL) == b"v"
    world.network.heal()
    await until(lambda: all(map(member(far[0]).coordinator._asker.is_reachable, (m.node for m in near))))
    assert await get(far[0], table, b"k", level=EACH) == b"v"


@simulated(machines=6, data_centers=2)
async def test_a_level_that_the_table_has_no_replicas_for_is_refused(world: World) -> None:
    table, _, far = await started(world, ONE_SIDE)
    with pytest.raises(RequestError, match="has none there, but in 'dc-0': ask a node there"):
        await put(far[0], table, b"k", b"v", level=LOCAL)
    with pytest.raises(RequestError, match="has none there"):
        await get(far[0], table, b"k", level=LOCAL)
    plain = await world.table("plain")
    with pytest.raises(RequestError, match="says no number for any"):
        await put(world.machines[0], plain, b"k", b"v", level=LOCAL)
    assert holders(world, table, b"k") == holders(world, plain, b"k") == []


@simulated(machines=6, data_centers=2)
async def test_a_level_that_is_short_of_nodes_says_where(world: World) -> None:
    table, near, _ = await started(world, BOTH)
    for machine in near[1:]:
        machine.crash()
    asker = member(near[0]).coordinator._asker
    await until(lambda: not any(asker.is_reachable(machine.node) for machine in near[1:]))
    with pytest.raises(UnavailableError, match="needs 2 of 3 replicas in data centre 'dc-0' and 1 can be reached"):
        await put(near[0], table, b"k", b"v", level=EACH)


@simulated(machines=6, data_centers=2)
async def test_replicas_of_the_own_data_center_are_asked_first(world: World) -> None:
    _, near, far = await started(world, BOTH)
    everyone = [machine.node for machine in world.machines]
    for side in near, far:
        first = member(side[0]).coordinator._asker.nearest_first(everyone)[:3]
        assert set(first) == {machine.node for machine in side}


@simulated(machines=6, data_centers=2)
async def test_a_node_that_may_keep_nothing_passes_writes_on_and_keeps_no_hint(world: World) -> None:
    table, near, far = await started(world, ONE_SIDE)
    primaries = replicas_of(world, table, b"k")
    assert all(machine in near for machine in primaries)
    (fallback,) = (machine for machine in near if machine not in primaries)
    asker = member(far[0]).coordinator._asker
    for machine in primaries:
        machine.crash()
    await until(lambda: not any(asker.is_reachable(machine.node) for machine in primaries))
    await put(far[0], table, b"k", b"v", level=ANY)
    assert keepers_of_any(world) == [fallback]

    fallback.crash()
    await until(lambda: not asker.is_reachable(fallback.node))
    for level in ANY, WriteQuorums(w=1):
        with pytest.raises(UnavailableError, match="needs 1 nodes and 0 can be reached"):
            await put(far[0], table, b"k", b"later", level=level)
    assert keepers_of_any(world) == [fallback]

    await world.start()
    await drained(world)
    other = member(far[1]).coordinator._asker
    await until(lambda: all(other.is_reachable(machine.node) for machine in primaries))
    assert await get(far[1], table, b"k") == b"v"
    assert holders(world, table, b"k") == [machine.address for machine in world.machines if machine in primaries]


@simulated(machines=6, data_centers=2)
async def test_a_hint_from_a_node_that_knows_no_better_is_refused(world: World) -> None:
    table, near, far = await started(world, ONE_SIDE)
    sent = hint(table, b"k", row(), number(near[0]))
    with pytest.raises(RefusedError, match="table t may not be kept in dc-1 zone-0"):
        await far[0].spawn(member(far[0]).serve(near[0].node, sent))
    assert keepers_of_any(world) == []


@simulated(machines=6, data_centers=2)
async def test_a_table_with_leaders_is_led_and_read_through_any_node_and_is_nowhere_else(world: World) -> None:
    await world.start()
    catalog = member(world.machines[0]).catalog
    work = catalog.create_table(
        wire="sim", name="led", definition=b"", unique_id="led", deadline=60.0, replication="leader", policy=ONE_SIDE
    )
    table = await world.machines[0].spawn(work)
    await until(lambda: all(member(machine).topology.table(table.id) for machine in world.machines))
    key = key_of(table, b"k")
    far = next(machine for machine in world.machines if machine.data_center == "dc-1")
    leader_based = member(far).leader_tables.leader_based
    await until(lambda: any(member(machine).leader_tables.leadership.leading() for machine in world.machines))
    led = await far.spawn(leader_based.read(table, key, is_consistent=True, deadline=60.0))
    assert led.value is None
    leading = {
        machine.data_center
        for machine in world.machines
        if any(led.group.rule == table.rule for led in member(machine).leader_tables.leadership.leading())
    }
    assert leading == {"dc-0"}
