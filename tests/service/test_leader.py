"""Leaders of items: conditions, versions, majorities, and what is told of what."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from merganser.core.cluster_map import without_table
from merganser.model.errors import OverloadedError, RefusedError, RequestError, UnavailableError, UnknownOutcomeError
from merganser.model.leader_messages import NOT_LEADING, Changed
from merganser.model.leadership import Epoch
from merganser.model.register import UNWRITTEN, Version
from merganser.service.in_flight import ANSWERS_BYTES_MAX, LARGE_BYTES, REQUESTS_KEPT_S, lightened, weight_of
from merganser.service.told import Untold
from merganser.sim.world import World
from service.led import (
    change,
    epoch_of,
    group_of,
    leader_of,
    leading,
    others_than,
    payload_of,
    read,
    register_at,
    started_led,
    take_over,
    term_at,
    the_leader,
    values_at,
)
from service.plays import made_with_leaders, member, now_s, simulated, until

K = b"k"


@simulated()
async def test_what_a_change_wrote_is_held_by_all_replicas_and_read(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    changed = await change(leader, table, K, payload_of("put", b"v"))
    found = await read(leader, table, K)
    assert (found.value, found.version) == (b"v", changed.version)
    await until(lambda: values_at(world, table, K) == [b"v"] * 3)


@simulated()
async def test_a_condition_that_does_not_hold_writes_nothing_and_says_what_it_saw(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    written = await change(leader, table, K, payload_of("put", b"v"))
    refused = await change(leader, table, K, payload_of("compare_and_set", b"other", b"w"))
    assert refused == Changed(b"v", is_rejected=True, version=written.version)
    done = await change(leader, table, K, payload_of("compare_and_set", b"v", b"w"))
    assert not done.is_rejected
    assert done.version > written.version
    assert (await read(leader, table, K)).value == b"w"


@simulated()
async def test_a_step_that_makes_no_sense_writes_nothing(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    with pytest.raises(RequestError, match="nothing is called nonsense"):
        await change(leader, table, K, payload_of("nonsense"))
    assert register_at(leader, table, K) == UNWRITTEN


@simulated()
async def test_versions_grow_by_one_within_a_term(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    epoch = epoch_of(leader, table, K)
    versions = [(await change(leader, table, K, payload_of("add", 1))).version for _ in range(3)]
    assert versions == [Version(*epoch, sequence) for sequence in (1, 2, 3)]


@simulated()
async def test_whoever_names_another_epoch_or_asks_another_node_is_refused_and_told_whom_to_ask(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    other, *_ = others_than(world, leader)
    standing = epoch_of(leader, table, K)
    await until(lambda: member(other).leader_tables.leadership.known(group_of(other, table, K)) == standing)
    for machine, epoch in (leader, Epoch(standing.number - 1, 1)), (other, standing):
        with pytest.raises(RefusedError) as refused:
            await change(machine, table, K, payload_of("put", b"v"), epoch=epoch)
        assert (refused.value.code, refused.value.epoch) == (NOT_LEADING, standing)
        with pytest.raises(RefusedError) as refused:
            await read(machine, table, K, epoch=epoch)
        assert (refused.value.code, refused.value.epoch) == (NOT_LEADING, standing)
    assert values_at(world, table, K) == [None] * 3


@simulated()
async def test_a_request_that_comes_again_is_done_once_and_answered_as_it_was(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    add = payload_of("add", 1)
    once = [change(leader, table, K, add, request=b"r" * 16) for _ in range(3)]
    first, *repeated = await asyncio.gather(*once)
    assert repeated == [first, first]
    assert await change(leader, table, K, add, request=b"r" * 16) == first
    assert (await change(leader, table, K, add)).answer == b"2"


@simulated()
async def test_a_repeated_request_that_wrote_nothing_writes_nothing_though_it_could_by_now(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    compare = payload_of("compare_and_set", b"a", b"b")
    first = await change(leader, table, K, compare, request=b"r" * 16)
    await change(leader, table, K, payload_of("put", b"a"))
    assert first.is_rejected
    assert await change(leader, table, K, compare, request=b"r" * 16) == first
    assert (await read(leader, table, K)).value == b"a"


@simulated()
async def test_a_copy_of_a_request_that_was_refused_is_not_done_when_it_could_be(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    heir, *_ = others_than(world, leader)
    coming = Epoch(epoch_of(leader, table, K).number + 1, member(heir).topology.me.number)
    put = payload_of("put", b"v")
    with pytest.raises(RefusedError):
        await change(heir, table, K, put, epoch=coming, request=b"r" * 16)
    assert (await take_over(heir, table, K)).epoch == coming
    with pytest.raises(UnavailableError, match="has come before"):
        await change(heir, table, K, put, epoch=coming, request=b"r" * 16)
    assert (await read(heir, table, K)).value is None


@simulated()
async def test_a_copy_of_a_request_whose_outcome_is_unknown_is_not_told_that_nothing_was_done(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    epoch, put = epoch_of(leader, table, K), payload_of("put", b"v")
    heir, third = others_than(world, leader)
    for machine in heir, third:
        world.network.cut(leader.address, machine.address)
    writing = asyncio.create_task(change(leader, table, K, put, epoch=epoch, request=b"r" * 16))
    await until(lambda: register_at(leader, table, K).value == b"v")
    await take_over(heir, table, K)
    for asked in writing, change(leader, table, K, put, epoch=epoch, request=b"r" * 16):
        with pytest.raises(UnknownOutcomeError):
            await asked


@simulated()
async def test_large_answers_are_kept_while_there_is_room(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await change(leader, table, K, payload_of("put", bytes(ANSWERS_BYTES_MAX // 2)))
    fails = payload_of("compare_and_set", b"other", b"w")
    first = await change(leader, table, K, fails, request=b"1" * 16)
    assert await change(leader, table, K, fails, request=b"1" * 16) == first
    for _ in range(2):
        await change(leader, table, K, fails)
    with pytest.raises(UnavailableError, match="not kept any more"):
        await change(leader, table, K, fails, request=b"1" * 16)


@simulated()
async def test_what_could_not_be_remembered_is_not_done(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("merganser.service.in_flight.REQUESTS_MAX", 2)
        table = await started_led(world)
    leader = the_leader(world, table, K)
    for _ in range(2):
        await change(leader, table, K, payload_of("add", 1))
    with pytest.raises(OverloadedError, match="writes were done of late"):
        await change(leader, table, K, payload_of("add", 1))
    assert (await read(leader, table, K)).value == b"2"
    for _ in range(int(REQUESTS_KEPT_S) + 1):  # a gap between two looks counts for a second
        await asyncio.sleep(1.0)
        with contextlib.suppress(OverloadedError):
            await change(leader, table, K, payload_of("add", 1))
            break
    assert (await read(leader, table, K)).value == b"3"


@simulated()
async def test_a_group_has_a_bounded_number_of_writes_in_flight(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    for machine in world.machines:
        machine.disk.slow((0.5, 0.5))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("merganser.service.led_terms.IN_FLIGHT_MAX", 2)
        writing = [asyncio.create_task(change(leader, table, K, payload_of("add", 1))) for _ in range(2)]
        await until(lambda: register_at(leader, table, K).value == b"2")
        with pytest.raises(OverloadedError, match="on their way"):
            await change(leader, table, K, payload_of("add", 1))
        await asyncio.gather(*writing)
        assert (await change(leader, table, K, payload_of("add", 1))).answer == b"3"


def test_of_a_write_that_is_done_and_whose_answer_is_dropped_it_is_known_that_it_is_done() -> None:
    version = Version(1, 1, 1)
    assert weight_of(Changed(bytes(LARGE_BYTES), False, version)) == LARGE_BYTES
    assert weight_of(Changed(b"small", False, version)) == weight_of("refused") == 0
    assert lightened(Changed(bytes(LARGE_BYTES), False, version)) == Untold()


@simulated()
async def test_steps_on_one_item_build_on_one_another_without_waiting(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    for machine in world.machines:
        machine.disk.slow((0.5, 0.5))
    began = now_s()
    totals = [
        changed.answer
        for changed in await asyncio.gather(*(change(leader, table, K, payload_of("add", 1)) for _ in range(20)))
    ]
    assert sorted(totals, key=int) == [b"%d" % (total + 1) for total in range(20)]
    assert now_s() - began < 1.7  # an fsync that is under way, and one that serves them all, at each of two replicas


@simulated()
async def test_a_read_waits_for_the_write_whose_value_it_would_tell(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    for other in others_than(world, leader):
        other.disk.slow((0.5, 0.5))
    writing = asyncio.create_task(change(leader, table, K, payload_of("put", b"v")))
    await until(lambda: register_at(leader, table, K).value == b"v")
    found, refused = await asyncio.gather(
        read(leader, table, K), change(leader, table, K, payload_of("compare_and_set", b"x", b"y"))
    )
    await writing
    assert (found.value, refused.answer) == (b"v", b"v")


@simulated()
async def test_a_write_whose_client_has_gone_is_sent_until_a_majority_has_it(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    others = others_than(world, leader)
    for other in others:
        world.network.cut(leader.address, other.address)
    writing = asyncio.create_task(change(leader, table, K, payload_of("put", b"v")))
    await asyncio.sleep(0.05)
    writing.cancel()
    assert [register_at(other, table, K) for other in others] == [UNWRITTEN] * 2
    for other in others:
        world.network.mend(leader.address, other.address)
    await until(lambda: values_at(world, table, K) == [b"v"] * 3, timeout_s=2.0)
    assert (await read(leader, table, K)).value == b"v"


@simulated()
async def test_whoever_is_deposed_with_a_write_in_flight_says_that_its_outcome_is_unknown(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    other, third = others_than(world, leader)
    for machine in other, third:
        world.network.cut(leader.address, machine.address)
    writing = asyncio.create_task(change(leader, table, K, payload_of("put", b"v")))
    await until(lambda: register_at(leader, table, K).value == b"v")
    await take_over(other, table, K)
    with pytest.raises(UnknownOutcomeError, match="may be there"):
        await writing
    assert (await read(other, table, K)).value is None


@simulated()
async def test_a_leader_that_is_cut_off_tells_nothing(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await change(leader, table, K, payload_of("put", b"v"))
    world.cut_off(leader)
    asked = (
        read(leader, table, K),
        change(leader, table, K, payload_of("compare_and_set", b"x", b"y")),
        change(leader, table, K, payload_of("no such step")),
    )
    told = await asyncio.gather(*asked, return_exceptions=True)  # at once: soon it knows that it is cut off
    assert all(isinstance(refused, RefusedError | UnavailableError) for refused in told)


@simulated()
async def test_what_is_in_flight_of_a_table_that_is_dropped_is_given_up(world: World) -> None:
    table = await started_led(world)
    await made_with_leaders(world, name="another")  # else nobody would lead any more
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    for machine in others_than(world, leader):
        machine.disk.slow((4.0, 4.0))
    writing = asyncio.create_task(change(leader, table, K, payload_of("put", b"v")))
    await until(lambda: register_at(leader, table, K).value == b"v")
    topology = member(leader).topology
    without = without_table(topology.map, wire=table.wire, name=table.name, unique_id=table.unique_id)
    await leader.spawn(topology.learn(without))
    async with asyncio.timeout(0.1):
        with pytest.raises(UnknownOutcomeError):
            await writing


# Letting go


@simulated()
async def test_a_leader_that_is_to_let_go_takes_no_changes_and_waits_for_those_in_flight(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    for machine in world.machines:
        machine.disk.slow((0.2, 0.2))
    writing = asyncio.create_task(change(leader, table, K, payload_of("put", b"v")))
    await until(lambda: register_at(leader, table, K).value == b"v")
    term = term_at(leader, table, K)
    assert term is not None
    letting_go = leader.spawn(leader_of(leader).terms.quiesce(term, now_s() + 5.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    with pytest.raises(RefusedError) as refused:
        await change(leader, table, K, payload_of("put", b"w"))
    assert refused.value.code == NOT_LEADING
    assert await letting_go
    await writing


@simulated()
async def test_a_leader_that_cannot_end_what_is_in_flight_goes_on(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    for machine in others_than(world, leader):
        machine.disk.slow((0.6, 0.6))
    writing = asyncio.create_task(change(leader, table, K, payload_of("put", b"v")))
    await until(lambda: register_at(leader, table, K).value == b"v")
    term = term_at(leader, table, K)
    assert term is not None
    assert not await leader.spawn(leader_of(leader).terms.quiesce(term, now_s() + 0.1))
    assert not (await change(leader, table, K, payload_of("put", b"w"))).is_rejected
    await writing


# Disks


@simulated()
async def test_a_leader_whose_fsync_fails_cannot_say_what_became_of_a_write_that_no_majority_has(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    for other in others_than(world, leader):
        world.network.cut(leader.address, other.address)
    leader.disk.fail_next_sync()
    with pytest.raises(UnknownOutcomeError):
        await change(leader, table, K, payload_of("put", b"v"))
    with pytest.raises((RefusedError, UnavailableError)):
        await change(leader, table, K, payload_of("put", b"w"))


@simulated()
async def test_a_full_disk_at_the_leader_makes_another_node_lead(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    await read(leader, table, K)
    leader.disk.fill(to_the_last_byte=True)
    with pytest.raises((UnknownOutcomeError, RefusedError)):
        await change(leader, table, K, payload_of("put", b"v"))
    await until(lambda: leading(world, table, K) not in (None, leader), timeout_s=10.0)
    heir = the_leader(world, table, K)
    assert not (await change(heir, table, K, payload_of("put", b"w"))).is_rejected


@simulated()
async def test_a_leader_short_of_disk_refuses_changes_before_it_writes_anything(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    leader.disk.fill()
    await until(lambda: member(leader).wholeness.is_refusing)
    with pytest.raises(RefusedError, match="short of disk"):
        await change(leader, table, K, payload_of("put", b"v"))
    assert register_at(leader, table, K) == UNWRITTEN


@simulated()
async def test_a_write_needs_no_replica_that_is_short_of_disk(world: World) -> None:
    table = await started_led(world)
    leader = the_leader(world, table, K)
    short, _ = others_than(world, leader)
    short.disk.fill()
    await until(lambda: member(short).wholeness.is_refusing)
    assert not (await change(leader, table, K, payload_of("put", b"v"))).is_rejected
    assert register_at(short, table, K) == UNWRITTEN
