"""The store of hints: durable, merged, bounded, counted, and given up only for a reason."""

from __future__ import annotations

import pytest

from merganser.core import hint_policy
from merganser.core.hint_policy import HINT_WINDOW_OVER, HINT_WINDOW_S, HINTS_FULL
from merganser.core.token import TOKEN_MAX, TOKEN_MIN, token_of
from merganser.model.cluster import Table
from merganser.model.errors import ClockSkewError, RefusedError, UnavailableError
from merganser.model.ids import TableId, Token
from merganser.model.messages import Found, Merged, ReadHint
from merganser.model.row import Cell, Row
from merganser.model.timestamp import BEGINNING, Timestamp
from merganser.service.hint_store import HintStore
from merganser.service.replica import NO_SUCH_TABLE
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.values import decode_row
from service.hints import hint, keep, number
from service.plays import CELL, key_of, member, now_s, replicas_of, settled, simulated, started, until

AWAY = 999  # the number of a node that was never there; nothing is delivered to it on its own account


def row(value: bytes = b"v", micros: int = 0) -> Row:
    return Row((Cell(CELL, Timestamp(EPOCH_US + micros, 9), value),))


def store(machine: Machine) -> HintStore:
    return member(machine).hints


def stored_rows(machine: Machine, target: int) -> dict[bytes, Row]:
    """Return what ``machine`` keeps for ``target``, by name."""
    return {
        keys.split_row_key(one.key)[2]: decode_row(one.key, one.row)
        for one in store(machine).slice(target, b"", hints_max=1000, bytes_max=10**9)
    }


async def keeping(world: World) -> tuple[Table, Machine, Machine, int]:
    """Return a table, a keeper, and a machine that is down with its number: nothing is delivered to it."""
    table = await started(world)
    keeper, target = world.machines[0], world.machines[2]
    its_number = number(target)
    target.crash()
    return table, keeper, target, its_number


@simulated()
async def test_a_hint_that_was_acknowledged_survives_a_power_cut(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    await keep(keeper, hint(table, b"k", row(), target))
    keeper.crash()
    keeper.start()
    await world.up(keeper)
    assert stored_rows(keeper, target) == {b"k": row()}
    await until(lambda: store(keeper).held(target).hints == 1)


@simulated()
async def test_hints_for_one_key_and_target_become_one(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    other = Cell(b"other", Timestamp(EPOCH_US + 5, 9), b"x")
    await keep(keeper, hint(table, b"k", row(b"old", 1), target))
    await keep(keeper, hint(table, b"k", row(b"new", 2), target))
    await keep(keeper, hint(table, b"k", Row((other,)), target))
    assert stored_rows(keeper, target) == {b"k": Row((other, *row(b"new", 2).cells))}
    assert store(keeper).held(target).hints == 1


@simulated()
async def test_the_ack_tells_of_something_newer_as_a_replicas_does(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    assert await keep(keeper, hint(table, b"k", row(b"new", 2), target)) == Merged()
    outranked = await keep(keeper, hint(table, b"k", row(b"old", 1), target))
    assert outranked == Merged(Timestamp(EPOCH_US + 2, 9))
    assert stored_rows(keeper, target) == {b"k": row(b"new", 2)}


@simulated()
async def test_the_count_is_what_lies_on_the_disk_after_any_change_and_after_a_restart(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    for name in (b"a", b"b", b"c", b"b"):
        await keep(keeper, hint(table, name, row(name * 100, len(name)), target))
    some = store(keeper).slice(target, b"", hints_max=1, bytes_max=10**9)
    store(keeper).delivered(target, some)

    def on_disk() -> tuple[int, int]:
        pairs = list(keeper.engine.scan(*keys.all_hints_range()))
        return len(pairs), sum(len(key) + len(value) for key, value in pairs)

    def counted() -> tuple[int, int]:
        held = store(keeper).held(target)
        return held.hints, held.stored_bytes

    assert counted() == on_disk() == (2, on_disk()[1])
    await keeper.spawn(keeper.engine.durable())
    keeper.crash()
    keeper.start()
    await world.up(keeper)
    await until(lambda: store(keeper)._is_counted)
    assert counted() == on_disk() == (2, on_disk()[1])


@simulated()
async def test_nothing_is_taken_before_what_is_there_has_been_counted(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    store(keeper)._is_counted = False
    with pytest.raises(UnavailableError, match="counts its hints"):
        await keep(keeper, hint(table, b"k", row(), target))
    assert store(keeper).has_hints(table.id, TOKEN_MIN, TOKEN_MAX, until_us=0), "nobody knows yet"


@simulated()
async def test_hints_beyond_the_bytes_allowed_are_refused_and_there_is_room_again_after_delivery(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    await keep(keeper, hint(table, b"a", row(), target))
    size = store(keeper).held(target).stored_bytes
    before, hint_policy.HINT_BYTES_MAX = hint_policy.HINT_BYTES_MAX, 2 * size
    try:
        await keep(keeper, hint(table, b"b", row(), target))
        with pytest.raises(RefusedError, match="bytes of hints are stored here") as refused:
            await keep(keeper, hint(table, b"c", row(), target))
        assert refused.value.code == HINTS_FULL
        assert store(keeper).refused == 1
        assert set(stored_rows(keeper, target)) == {b"a", b"b"}
        store(keeper).delivered(target, store(keeper).slice(target, b"", hints_max=1, bytes_max=1))
        await keep(keeper, hint(table, b"c", row(), target))
    finally:
        hint_policy.HINT_BYTES_MAX = before


@simulated()
async def test_a_target_away_for_longer_than_the_window_gets_no_new_keys_and_keeps_what_is_stored(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    await keep(keeper, hint(table, b"a", row(b"old", 1), target))
    keeper.skew_us += (HINT_WINDOW_S + 1) * 1_000_000
    with pytest.raises(RefusedError, match="the oldest hint for that node is 10801 s old") as refused:
        await keep(keeper, hint(table, b"b", row(), target))
    assert refused.value.code == HINT_WINDOW_OVER
    await keep(keeper, hint(table, b"a", row(b"new", 2), target))
    await keep(keeper, hint(table, b"b", row(), AWAY))
    assert stored_rows(keeper, target) == {b"a": row(b"new", 2)}


@simulated()
async def test_a_hint_that_changed_while_it_was_delivered_stays(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    await keep(keeper, hint(table, b"a", row(b"old", 1), target))
    await keep(keeper, hint(table, b"b", row(b"old", 1), target))
    under_way = store(keeper).slice(target, b"", hints_max=10, bytes_max=10**9)
    await keep(keeper, hint(table, b"b", row(b"new", 2), target))
    store(keeper).delivered(target, under_way)
    assert stored_rows(keeper, target) == {b"b": row(b"new", 2)}


@simulated()
async def test_slices_come_in_the_order_of_keys_and_within_their_bounds(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    names = [b"%d" % i for i in range(20)]
    for name in names:
        await keep(keeper, hint(table, name, row(b"x" * 100), target))
    in_order = sorted(names, key=lambda name: key_of(table, name))
    seen: list[bytes] = []
    start = b""
    while part := store(keeper).slice(target, start, hints_max=7, bytes_max=500):
        assert len(part) <= 7
        assert sum(len(one.value) for one in part[:-1]) < 500
        seen += [keys.split_row_key(one.key)[2] for one in part]
        start = keys.after(part[-1].key)
    assert seen == in_order


@simulated()
async def test_a_damaged_hint_is_given_up_and_counted_and_stops_no_other(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    for name in (b"a", b"b"):
        await keep(keeper, hint(table, name, row(), target))
    hint_key = keys.hint_key(target, key_of(table, b"a"))
    keeper.engine.commit(Batch().put(hint_key, b"\x01rubbish"))
    assert store(keeper).has_hints(table.id, token_of(b"a"), token_of(b"a"), until_us=0), "it may have held anything"
    assert stored_rows(keeper, target) == {b"b": row()}
    assert store(keeper).damaged == 1
    assert store(keeper).held(target).hints == 1


@simulated()
async def test_hints_of_a_dropped_table_are_given_up(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    other = await world.table("other")
    for one in (table, other):
        await keep(keeper, hint(one, b"k", row(), target))
    await keeper.spawn(member(keeper).catalog.drop_table(table, deadline=now_s() + 30.0))
    await until(lambda: store(keeper).held(target).hints == 1)
    with pytest.raises(RefusedError, match="no table with id 1") as refused:
        await keep(keeper, hint(table, b"k", row(), target))
    assert refused.value.code == NO_SUCH_TABLE
    assert [keys.table_in(one.key) for one in store(keeper).slice(target, b"", hints_max=9, bytes_max=9**9)] == [
        other.id
    ]


@simulated()
async def test_a_keeper_that_has_yet_to_hear_of_a_table_asks_for_the_newer_map(world: World) -> None:
    await world.start()
    keeper, author = world.machines[2], world.machines[0]
    world.cut_off(keeper)
    table = await world.table()
    world.network.heal()
    assert member(keeper).topology.table(table.id) is None
    epoch = member(author).topology.map.epoch
    sender = member(author).topology.node
    await keeper.spawn(store(keeper).keep(sender, hint(table, b"k", row(), AWAY, map_epoch=epoch)))
    assert member(keeper).topology.table(table.id) == table


@simulated()
async def test_rows_from_too_far_ahead_are_not_kept(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    with pytest.raises(ClockSkewError):
        await keep(keeper, hint(table, b"k", row(micros=3_600_000_000), target))
    assert stored_rows(keeper, target) == {}


@simulated(machines=5)
async def test_a_fallback_answers_reads_from_the_hints_for_all_replicas_of_the_key(world: World) -> None:
    table = await started(world)
    replicas = replicas_of(world, table, b"k")
    (keeper, *_) = [machine for machine in world.machines if machine not in replicas]
    numbers = [number(replica) for replica in replicas]
    for replica in replicas:
        replica.crash()
    a, b = Cell(b"a", Timestamp(EPOCH_US, 1), b"1"), Cell(b"b", Timestamp(EPOCH_US, 2), b"2")
    key = key_of(table, b"k")
    question = ReadHint(0, table.id, key)
    me = member(keeper).topology.node
    assert await keeper.spawn(store(keeper).read(me, question)) == Found(None)
    await keep(keeper, hint(table, b"k", Row((a,)), numbers[0]))
    await keep(keeper, hint(table, b"k", Row((b,)), numbers[2]))
    found = await keeper.spawn(store(keeper).read(me, question))
    assert found.row is not None
    assert decode_row(key, found.row) == Row((a, b))
    await settled(world)


# What a repair round asks before it seals a partition


@simulated()
async def test_a_hint_with_a_cell_or_a_tombstone_as_old_as_asked_is_told_for_its_tokens_only(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    hints = store(keeper)
    token = token_of(b"k")
    until_us = EPOCH_US + 10
    assert not hints.has_hints(table.id, TOKEN_MIN, TOKEN_MAX, until_us=until_us)
    await keep(keeper, hint(table, b"k", row(micros=11), target))
    assert not hints.has_hints(table.id, TOKEN_MIN, TOKEN_MAX, until_us=until_us), "newer"
    await keep(keeper, hint(table, b"k", Row((), Timestamp(EPOCH_US + 10, 1)), target))
    assert hints.has_hints(table.id, TOKEN_MIN, TOKEN_MAX, until_us=until_us)
    assert hints.has_hints(table.id, token, token, until_us=until_us)
    assert not hints.has_hints(table.id, TOKEN_MIN, Token(token - 1), until_us=until_us)
    assert not hints.has_hints(table.id, Token(token + 1), TOKEN_MAX, until_us=until_us)
    assert not hints.has_hints(TableId(table.id + 1), TOKEN_MIN, TOKEN_MAX, until_us=until_us)


@simulated()
async def test_a_row_that_was_never_deleted_has_no_tombstone_to_tell_of(world: World) -> None:
    table, keeper, _, target = await keeping(world)
    assert row().deleted_at == BEGINNING
    await keep(keeper, hint(table, b"k", row(micros=100), target))
    assert not store(keeper).has_hints(table.id, TOKEN_MIN, TOKEN_MAX, until_us=EPOCH_US)
