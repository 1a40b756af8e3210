"""Leaders of a simulated cluster: one for each group, spread evenly, soon replaced when it is gone."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import RefusedError, UnavailableError
from merganser.model.leader_messages import NOT_LEADING, TakeOver
from merganser.model.leadership import Epoch, Group
from merganser.service.confirming import LATE_S, ROUND_S
from merganser.service.leadership import CLOSE_S, Led
from merganser.sim.network import Conditions
from merganser.sim.world import World
from service.elections import (
    GROUP,
    GROUPS,
    SETTLED_S,
    TAKE_OVER_S,
    confirmed,
    has_leaders,
    leader,
    leaders,
    leadership,
    led_evenly,
    term,
)
from service.plays import made_with_leaders, member, now_s, simulated, started, started_with_leaders, until

# Elections


@simulated()
async def test_every_group_has_exactly_one_leader_and_they_are_spread_evenly(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world, timeout_s=0.1)  # some round trips and fsyncs
    for group in GROUPS:
        epoch = term(leader(world, group), group).epoch
        assert epoch.number == 1
        await until(lambda: all(leadership(machine).known(group) == epoch for machine in world.machines))  # noqa: B023


@simulated()
async def test_without_a_table_that_has_leaders_nobody_does_anything_for_elections(world: World) -> None:
    await started(world)
    await asyncio.sleep(5.0)
    for machine in world.machines:
        assert not member(machine).leader_tables.is_running
        assert not leadership(machine).leading()


@simulated()
async def test_a_table_of_another_n_gets_leaders_at_once_and_those_of_the_first_stay(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    before = [term(leader(world, group), group) for group in GROUPS]
    await made_with_leaders(world, n=1, name="alone")
    alone = [Group(1, group.partition) for group in GROUPS]
    await until(lambda: all(len(leaders(world, group)) == 1 for group in alone), timeout_s=0.1)
    assert all(led.is_standing for led in before)


@simulated()
async def test_nobody_leads_for_a_table_that_was_dropped(world: World) -> None:
    table = await started_with_leaders(world)
    await led_evenly(world)
    led = term(leader(world))
    machine = world.machines[0]
    await machine.spawn(member(machine).catalog.drop_table(table, deadline=now_s() + 5.0))
    await until(lambda: not any(leadership(machine).leading() for machine in world.machines))
    assert not led.is_standing


@simulated()
async def test_a_term_tells_the_roots_of_the_replicas_that_promised(world: World) -> None:
    table = await started_with_leaders(world)
    await led_evenly(world)
    led = term(leader(world))
    roots = led.roots[table.id]
    assert leader(world).node in roots
    assert len(roots) >= 2
    assert set(roots.values()) == {0}  # of an empty partition
    assert led.replicas == member(leader(world)).topology.ring.preference_list(GROUP.partition, 3)


@simulated()
async def test_versions_of_a_term_are_contiguous_and_outrank_those_of_earlier_terms(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    before = term(leader(world))
    versions = [before.next_version() for _ in range(3)]
    assert [version.sequence for version in versions] == [1, 2, 3]
    leader(world).crash()
    await until(lambda: has_leaders(world))
    assert term(leader(world)).next_version() > versions[-1]


# Epochs that others tell of


@simulated()
async def test_a_leader_is_deposed_by_a_later_epoch_that_it_promises_or_hears_of(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, led = leader(world), term(leader(world))
    deposed: list[Led] = []
    leadership(machine).when_deposed(deposed.append)
    leadership(machine).learned(GROUP, Epoch(7, 2))
    assert not led.is_standing
    assert deposed == [led]
    await led_evenly(world)
    again = term(leader(world))
    assert again.epoch.number == 8
    await machine.spawn(member(machine).leader_tables.promises.admit(GROUP, Epoch(9, 2)))
    assert not again.is_standing
    await led_evenly(world)
    assert term(leader(world)).epoch.number >= 10


# Handovers


@simulated()
async def test_the_first_replica_leads_again_some_seconds_after_it_is_back(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    machine.crash()
    await until(lambda: has_leaders(world))
    machine.start()
    await world.up(machine)
    await asyncio.sleep(2.0)
    assert leader(world) is not machine
    await led_evenly(world)
    assert leader(world) is machine


@simulated()
async def test_a_handover_that_arrives_late_deposes_nobody(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, epoch = leader(world), term(leader(world)).epoch
    leadership(machine).learned(GROUP, Epoch(7, epoch.leader))
    await led_evenly(world)
    again = term(leader(world))
    assert again.epoch > epoch
    heir = next(other for other in world.machines if other is not machine)
    late = TakeOver(0, GROUP.rule, ((GROUP.partition, epoch),))
    await heir.spawn(member(heir).serve(machine.node, late))
    await asyncio.sleep(1.0)
    assert again.is_standing


@simulated()
async def test_a_leader_with_something_in_flight_hands_nothing_over(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    machine.crash()
    await until(lambda: has_leaders(world))
    is_busy = True

    async def quiesce(led: Led, _deadline: float) -> bool:
        return led.group != GROUP or not is_busy

    busy, led = leader(world), term(leader(world))
    leadership(busy).quiesce = quiesce
    machine.start()
    await world.up(machine)
    await asyncio.sleep(SETTLED_S)
    assert led.is_standing
    is_busy = False
    await led_evenly(world)
    assert leader(world) is machine


@simulated()
async def test_a_node_that_is_closed_leaves_its_groups_to_others_in_a_moment(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    await machine.spawn(member(machine).close())
    assert not leadership(machine).leading()
    await until(lambda: has_leaders(world), timeout_s=0.1)
    await asyncio.sleep(SETTLED_S)
    assert has_leaders(world)


@simulated()
async def test_a_node_that_is_closed_waits_for_what_is_in_flight(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, led = leader(world), term(leader(world))

    async def quiesce(_led: Led, deadline: float) -> bool:
        await asyncio.sleep(0.8 * (deadline - now_s()))
        return True

    leadership(machine).quiesce = quiesce
    closing = machine.spawn(member(machine).close())
    await asyncio.sleep(0.75 * CLOSE_S)
    assert led.is_standing
    await closing
    await until(lambda: has_leaders(world), timeout_s=0.1)


# Confirmations


@simulated()
async def test_a_leader_confirms_its_epochs_for_all_that_wait_with_a_few_messages(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    sent = world.network.sent
    await asyncio.gather(
        *(confirmed(machine, led) for led in leadership(machine).leading() for _ in range(100)),
    )
    assert world.network.sent - sent <= 16  # two of a round, and what else is said meanwhile


@simulated()
async def test_no_more_replicas_are_asked_than_a_majority_takes(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    sent = world.network.sent
    for _ in range(20):
        await confirmed(machine, term(machine))
    assert world.network.sent - sent <= 80  # two each, and what else is said meanwhile; four each would make some 105


@simulated()
async def test_who_was_late_is_not_asked_first_for_a_while(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    others = [other for other in world.machines if other is not machine]
    for other in others:
        other.pause()
        late = []
        for _ in range(10):
            began = now_s()
            await confirmed(machine, term(machine))
            late.append(now_s() - began >= ROUND_S)
        other.resume()
        assert late.count(True) <= 1
        await asyncio.sleep(LATE_S)


@simulated()
async def test_a_leader_that_does_not_know_yet_that_it_is_deposed_confirms_nothing(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    old, led = leader(world), term(leader(world))
    old.pause()
    await until(lambda: has_leaders(world), timeout_s=TAKE_OVER_S)
    old.resume()
    with pytest.raises(RefusedError) as refused:
        await confirmed(old, led)
    assert refused.value.code == NOT_LEADING
    assert refused.value.epoch > led.epoch


@simulated()
async def test_without_a_majority_nothing_is_confirmed(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine, led = leader(world), term(leader(world))
    world.cut_off(machine)
    with pytest.raises(UnavailableError):
        await confirmed(machine, led, timeout_s=0.5)
    began = now_s()
    with pytest.raises(RefusedError):
        await confirmed(machine, led, timeout_s=5.0)
    assert now_s() - began < 1.0, "whoever waits is told when the term ends"


@simulated()
async def test_one_silent_replica_does_not_delay_confirmations(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    next(other for other in world.machines if other is not machine).pause()
    for _ in range(20):
        began = now_s()
        await confirmed(machine, term(machine))
        assert now_s() - began < 0.05


@simulated()
async def test_a_question_that_is_lost_is_asked_again(world: World) -> None:
    await started_with_leaders(world)
    await led_evenly(world)
    machine = leader(world)
    world.network.conditions = Conditions(loss=0.4)
    for _ in range(20):
        await confirmed(machine, term(machine), timeout_s=5.0)


@simulated()
async def test_a_group_of_one_replica_is_confirmed_by_itself(world: World) -> None:
    await started_with_leaders(world, n=1)
    alone = Group(1, GROUP.partition)
    await until(lambda: len(leaders(world, alone)) == 1)
    machine = leader(world, alone)
    world.cut_off(machine)
    await asyncio.sleep(5.0)
    await confirmed(machine, term(machine, alone))
