"""Global indexes in a simulated cluster: entries follow their items, whatever becomes of leaders and messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import msgspec
import pytest

from merganser.core.indexing import OUTBOX_MAX, Shown, decoded, encoded
from merganser.model.cluster import Table
from merganser.model.errors import OverloadedError, UnavailableError
from merganser.model.ids import TableId
from merganser.model.leader_messages import Change
from merganser.model.leadership import Epoch
from merganser.model.register import Content, Pending, Register, Version
from merganser.service import indexer
from merganser.service.steps import INDEXES, WIRES
from merganser.service.transactions import TransactItem
from merganser.sim import indexes
from merganser.sim.indexes import value_of
from merganser.sim.machine import Machine
from merganser.sim.steps import Put, payload_of
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.registers import decode_register, encode_register
from service.led import leading, register_at, take_over, the_leader
from service.plays import key_of, member, now_s, simulated, until

TIMEOUT_S = 5.0
RED, BLUE = value_of(b"red", b"round", b"1"), value_of(b"blue", b"round", b"2")


async def begun(world: World, *, names: Sequence[str] = (indexes.BY_COLOR, indexes.BY_SHAPE)) -> Table:
    await world.start()
    table = await world.table(replication="leader", indexes=[i for i in indexes.INDEXES if i.name in names])
    await until(lambda: all(leading(world, table, b"%d" % n) for n in range(100)))
    return table


async def put(machine: Machine, table: Table, name: bytes, value: bytes | None) -> Version:
    items = member(machine).leader_tables.leader_based
    work = items.change(table, key_of(table, name), WIRES, payload_of(Put(value)), deadline=now_s() + TIMEOUT_S)
    return (await machine.spawn(work)).version


def shown(world: World, table: Table) -> set[tuple[str, bytes]]:
    """Return what the newest registers of the indexes show: partition key and item of each entry."""
    newest: dict[bytes, Register] = {}
    for machine in world.machines:
        for index in table.indexes:
            for key, stored in machine.engine.scan(*keys.table_range(index.table)):
                register = decode_register(key, stored)
                if key not in newest or newest[key].version < register.version:
                    newest[key] = register
    return {
        (keys.split_row_key(key)[2].decode(), value)
        for key, register in newest.items()
        if register.value is not None and (value := decoded(register.value).value) is not None
    }


def is_settled(world: World, table: Table) -> bool:
    """Tell whether nothing is behind any item on any machine."""
    low, high = keys.table_range(table.id)
    return not any(
        decode_register(key, stored).content.outbox
        for machine in world.machines
        for key, stored in machine.engine.scan(low, high)
    )


async def settled(world: World, table: Table) -> set[tuple[str, bytes]]:
    await until(lambda: is_settled(world, table))
    return shown(world, table)


def entry_of(table: Table, name: bytes, value: bytes, index: str = indexes.BY_COLOR) -> Pending:
    found = {one.index: one for one in indexes.entries(table, key_of(table, name), value)}
    return next(i.table for i in table.indexes if i.name == index), found[index].key


@simulated()
async def test_entries_follow_an_item_through_its_life(world: World) -> None:
    table, machine = await begun(world), world.machines[0]
    await put(machine, table, b"a", RED)
    assert await settled(world, table) == {("red", RED), ("round", b"there")}
    await put(machine, table, b"a", BLUE)
    assert await settled(world, table) == {("blue", BLUE), ("round", b"there")}
    await put(machine, table, b"a", None)
    assert await settled(world, table) == set()


@simulated()
async def test_index_is_read_by_page_without_markers(world: World) -> None:
    table, machine = await begun(world), world.machines[0]
    for name in (b"a", b"b", b"c"):
        await put(machine, table, name, RED)
    await put(machine, table, b"b", BLUE)
    await settled(world, table)
    by_color = member(machine).topology.table(table.indexes[0].table)
    assert by_color is not None
    reader, start, found = member(machine).leader_tables.leader_based, keys.table_range(by_color.id)[0], list[bytes]()
    end: bytes | None = keys.table_range(by_color.id)[1]
    resume: bytes | None = start
    while resume is not None:
        assert end is not None
        work = reader.read_index(by_color, resume, end, rows_max=1, bytes_max=1, deadline=now_s() + TIMEOUT_S)
        page = await machine.spawn(work)
        found += [value for _, value in page.rows]
        resume = page.resume
    assert sorted(found) == sorted([RED, RED, BLUE])


@simulated()
async def test_a_write_that_no_index_shows_leaves_nothing_behind(world: World) -> None:
    table, machine = await begun(world, names=[indexes.BY_SHAPE]), world.machines[0]
    await put(machine, table, b"a", RED)
    await settled(world, table)
    before = register_at(the_leader(world, table, b"a"), table, b"a").version
    await put(machine, table, b"a", BLUE)
    after = register_at(the_leader(world, table, b"a"), table, b"a")
    assert after.content.outbox == ()
    assert after.version.sequence == before.sequence + 1
    assert sum(member(one).leader_tables.indexer.waiting for one in world.machines) == 0


@simulated()
async def test_items_that_a_transaction_makes_are_in_the_index_and_those_it_only_locks_are_not(world: World) -> None:
    table, machine = await begun(world), world.machines[0]
    await put(machine, table, b"a", RED)
    await settled(world, table)
    items = [
        TransactItem(table, key_of(table, name), payload_of(Put(value))) for name, value in ((b"a", BLUE), (b"b", RED))
    ]
    transactions = member(machine).leader_tables.transactions
    await machine.spawn(transactions.write(items, token=None, digest=b"", deadline=now_s() + TIMEOUT_S))
    await until(lambda: ("blue", BLUE) in shown(world, table))
    assert await settled(world, table) == {("blue", BLUE), ("red", RED), ("round", b"there")}


@simulated()
async def test_entries_follow_no_write_before_it_is_chosen(world: World) -> None:
    """Another leader may never hear of it, and then nobody would know of its entries."""
    table = await begun(world)
    leader = the_leader(world, table, b"a")
    await put(leader, table, b"a", RED)
    before = await settled(world, table)
    for machine in world.machines:
        if machine is not leader:
            machine.disk.slow((0.5, 0.5))
    writing = asyncio.create_task(put(leader, table, b"a", BLUE))
    await until(lambda: register_at(leader, table, b"a").value == BLUE)
    await asyncio.sleep(0.4)
    assert not writing.done()
    assert shown(world, table) == before
    await writing
    assert await settled(world, table) == {("blue", BLUE), ("round", b"there")}


@simulated()
async def test_outbox_that_an_earlier_leader_has_left_is_delivered_by_the_next(world: World) -> None:
    table = await begun(world)
    leader = the_leader(world, table, b"a")
    outbox = (entry_of(table, b"a", RED), entry_of(table, b"a", RED, indexes.BY_SHAPE))
    key = key_of(table, b"a")
    register = encode_register(key, Register(Version(1, 1, 10**6), Content(RED, outbox=outbox)))
    for machine in world.machines:
        member(machine).trees.write([(table.id, key, None, register)])
    other = next(machine for machine in world.machines if machine is not leader)
    await take_over(other, table, b"a")
    assert await settled(world, table) == {("red", RED), ("round", b"there")}


@simulated()
async def test_deleted_item_is_no_tombstone_before_its_entries_are_gone(world: World) -> None:
    table = await begun(world)
    await put(world.machines[0], table, b"a", RED)
    await settled(world, table)
    for machine in world.machines:
        member(machine).leader_tables.indexer.notice = lambda *_: None  # type: ignore[method-assign]
        member(machine).leader_tables.leader.items.when_behind_indexes = lambda *_: None
    await put(world.machines[0], table, b"a", None)
    content = register_at(the_leader(world, table, b"a"), table, b"a").content
    assert content.value is None
    assert set(content.outbox) == {entry_of(table, b"a", RED), entry_of(table, b"a", RED, indexes.BY_SHAPE)}


@simulated()
async def test_message_of_an_earlier_version_changes_no_entry(world: World) -> None:
    table, machine = await begun(world), world.machines[0]
    await put(machine, table, b"a", RED)
    await settled(world, table)
    (by_color, key), late = entry_of(table, b"a", RED), Shown(Version(1, 1, 1), b"late")
    entries = member(machine).topology.table(by_color)
    assert entries is not None
    items = member(machine).leader_tables.leader_based
    await put(machine, table, b"a", None)
    await settled(world, table)
    work = items.change(entries, key, INDEXES, encoded(late), deadline=now_s() + TIMEOUT_S)
    await machine.spawn(work)
    assert shown(world, table) == set()


@simulated()
async def test_adoption_leaves_behind_whatever_any_replica_held(world: World) -> None:
    """A write of a leader that knew of no index is met on one replica, and the one before it was in the index."""
    table = await begun(world)
    await put(world.machines[0], table, b"a", RED)
    await settled(world, table)
    leader = the_leader(world, table, b"a")
    key, held = key_of(table, b"a"), register_at(leader, table, b"a")
    later = Register(msgspec.structs.replace(held).version._replace(sequence=10**6), Content(BLUE))
    other = next(machine for machine in world.machines if machine is not leader)
    member(other).trees.write([(table.id, key, other.engine.get(key), encode_register(key, later))])
    await take_over(other, table, b"a")
    await until(lambda: register_at(other, table, b"a").version.number > later.version.number)
    assert await settled(world, table) == {("blue", BLUE), ("round", b"there")}


@simulated()
async def test_item_that_is_too_far_ahead_of_its_index_is_written_only_as_long_as_nothing_is_added(
    world: World,
) -> None:
    table = await begun(world, names=[indexes.BY_COLOR])
    key, leader = key_of(table, b"a"), the_leader(world, table, b"a")
    before, after = (value_of(color, b"", b"") for color in (b"red", b"blue"))
    colors = [b"red", b"blue", *(b"%d" % number for number in range(OUTBOX_MAX - 2))]
    full = Content(before, outbox=tuple(entry_of(table, b"a", value_of(color, b"", b"")) for color in colors))
    outboxes = member(leader).leader_tables.outboxes
    assert outboxes.of_write(table, key, full, Content(None)).outbox == full.outbox
    assert outboxes.of_write(table, key, full, Content(after)).outbox == full.outbox
    with pytest.raises(OverloadedError, match="entries of indexes are behind"):
        outboxes.of_write(table, key, full, Content(value_of(b"pink", b"", b"")))


@simulated()
async def test_message_that_names_another_epoch_of_the_index_is_refused(world: World) -> None:
    table, machine = await begun(world), world.machines[0]
    entries, key = entry_of(table, b"a", RED)
    known = member(machine).leader_tables.leadership
    index = member(machine).topology.table(entries)
    assert index is not None
    group = member(machine).leader_tables.indexer.epochs.group_of(index, key)
    leader = next(one for one in world.machines if member(one).leader_tables.leadership.led(group))
    old = member(leader).leader_tables.leadership.led(group)
    assert old is not None
    epoch = known.known(group)
    earlier = epoch._replace(number=epoch.number - 1)
    late = Change(0, entries, key, earlier, bytes(16), INDEXES, encoded(Shown(Version(9, 9, 9), b"late")))
    with pytest.raises(Exception, match="takes no requests for partition"):
        await leader.spawn(member(leader).serve(member(leader).topology.node, late))


@simulated()
async def test_epoch_that_was_only_heard_of_is_named_in_no_message(world: World) -> None:
    table, machine = await begun(world), world.machines[0]
    await put(machine, table, b"a", RED)
    await settled(world, table)
    entries, key = entry_of(table, b"a", RED)
    index = member(machine).topology.table(entries)
    assert index is not None
    epochs, leadership = member(machine).leader_tables.indexer.epochs, member(machine).leader_tables.leadership
    group = epochs.group_of(index, key)
    never_begun = leadership.known(group)._replace(number=leadership.known(group).number + 100)
    leadership.learned(group, never_begun)
    named: list[Epoch] = []

    async def name() -> None:
        while not named:
            with contextlib.suppress(UnavailableError):
                named.append(await epochs.of(index, key))

    await machine.spawn(name())
    led = [member(one).leader_tables.leadership.led(group) for one in world.machines]
    assert named == [term.epoch for term in led if term is not None]
    assert named != [never_begun]


@simulated()
async def test_what_is_behind_beyond_what_is_remembered_is_found_again(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(indexer, "WAITING_MAX", 2)
        patch.setattr(indexer, "AT_ONCE", 1)
        table = await begun(world, names=[indexes.BY_COLOR])
        names = [b"%d" % number for number in range(30)]
        tasks = [world.loop.create_task(put(world.machines[0], table, name, RED)) for name in names]
        for task in tasks:
            await task
        await until(lambda: is_settled(world, table))
    low, high = keys.table_range(table.indexes[0].table)
    assert len({key for machine in world.machines for key, _ in machine.engine.scan(low, high)}) == len(names)


@simulated()
async def test_outbox_keeps_what_a_later_map_knows_of_and_forgets_what_was_dropped(world: World) -> None:
    table = await begun(world, names=[indexes.BY_COLOR])
    outboxes = member(world.machines[0]).leader_tables.outboxes
    later = TableId(member(world.machines[0]).topology.map.next_table_id), b"of an index that is not known yet"
    dropped = table.id, b"of one that is gone: no index has its entries here"
    before = Content(RED, outbox=(later, dropped))
    assert outboxes.of_write(table, key_of(table, b"a"), before, Content(RED)).outbox == (later,)
    assert outboxes.without(table, key_of(table, b"a"), before, {}).outbox == (later,)
