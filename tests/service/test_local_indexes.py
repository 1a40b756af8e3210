"""Local indexes: entries go with their registers, and what a query by them waits for, and tells."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.leader_messages import Change, Changed, LedRows, ReadRangeLed
from merganser.model.register import Content, Intent, Register, Version
from merganser.service import led_ranges
from merganser.service.intents import GONE, Gone, NoTransactions
from merganser.service.steps import WIRES
from merganser.sim.local_keys import BY_END, SOME, local_keys
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.registers import decode_register, encode_register
from service.led import epoch_of, others_than, payload_of, started_led, take_over, the_leader
from service.plays import member, now_s, play, simulated, until

NAME = b"collection"


def key_of(table: Table, sort: bytes, name: bytes = NAME) -> bytes:
    return keys.row_key(table.id, token_of(name), name, sort)


def entries_at(machine: Machine) -> dict[bytes, bytes]:
    """Return the sort keys of rows by the entries that a machine holds."""
    stored = [keys.split_local_key(key) for key, _ in machine.engine.scan(*keys.all_local_range())]
    return {entry: keys.split_row_key(keys.row_of(entry))[3] for entry in stored}


def wanted(table: Table, items: dict[bytes, bytes]) -> set[bytes]:
    return {
        keys.entry_of(key_of(table, sort), index, key)
        for sort, value in items.items()
        for index, key in local_keys(value)
    }


def put_by_hand(machine: Machine, table: Table, sort: bytes, version: Version, content: Content) -> None:
    key = key_of(table, sort)
    stored = machine.engine.get(key)
    member(machine).trees.write([(table.id, key, stored, encode_register(key, Register(version, content)))])


async def put(leader: Machine, table: Table, sort: bytes, value: bytes | None, *, name: bytes = NAME) -> None:
    request = Change(
        0,
        table.id,
        key_of(table, sort, name),
        epoch_of(leader, table, name),
        member(leader).leader_tables.leader_based._rng.randbytes(16),
        WIRES,
        payload_of("put", value),
    )
    reply = await leader.spawn(member(leader).serve(member(leader).topology.node, request))
    assert isinstance(reply, Changed)


async def filled(world: World, table: Table, items: dict[bytes, bytes]) -> Machine:
    """Put the items; returns their leader, once all replicas hold all of them."""
    leader = the_leader(world, table, NAME)
    for sort, value in items.items():
        await put(leader, table, sort, value)
    await until(lambda: all(set(entries_at(machine)) == wanted(table, items) for machine in world.machines))
    return leader


async def query(
    machine: Machine, table: Table, *, index: int = BY_END, reverse: bool = False, rows_max: int = 100
) -> list[tuple[bytes, bytes]]:
    """Return sort keys and values of the collection, as its leader tells them in pages."""
    start = keys.entry_prefix(keys.collection_of(key_of(table, b"")), index)
    end = keys.prefix_end(start)
    found: list[tuple[bytes, bytes]] = []
    while True:
        epoch = epoch_of(machine, table, NAME)
        request = ReadRangeLed(0, table.id, start, end, epoch, reverse, rows_max, 1_000_000, index)
        reply = await machine.spawn(member(machine).serve(member(machine).topology.node, request))
        assert isinstance(reply, LedRows)
        assert len(reply.rows) <= rows_max
        found += [(keys.split_row_key(keys.row_of(entry))[3], value) for entry, value in reply.rows]
        if reply.resume is None:
            return found
        start, end = (start, reply.resume) if reverse else (reply.resume, end)


@simulated()
async def test_entries_follow_their_registers_at_every_replica_and_go_with_their_table(world: World) -> None:
    table = await started_led(world)
    leader = await filled(world, table, {b"a": b"1c", b"b": b"2b", b"c": b"3a"})
    await put(leader, table, b"a", b"9a")
    await put(leader, table, b"b", None)
    now = wanted(table, {b"a": b"9a", b"c": b"3a"})
    await until(lambda: all(set(entries_at(machine)) == now for machine in world.machines))
    catalog = member(leader).catalog
    await leader.spawn(catalog.drop_table(table, deadline=now_s() + 10.0))
    await until(lambda: not any(entries_at(machine) for machine in world.machines))


@simulated()
async def test_a_query_tells_items_in_the_order_of_the_index_both_ways_and_in_pages(world: World) -> None:
    table = await started_led(world)
    items = {b"a": b"1c", b"b": b"2b", b"c": b"3a", b"d": b"5a", b"e": b"4\x00"}
    leader = await filled(world, table, items)
    ordered = sorted(items.items(), key=lambda item: item[1][::-1])
    some = sorted((value[-1:], sort) for sort, value in items.items() if value[-1] % 2)
    for rows_max in 1, 2, 100:
        assert await query(leader, table, rows_max=rows_max) == ordered
        assert await query(leader, table, rows_max=rows_max, reverse=True) == ordered[::-1]
        found = await query(leader, table, rows_max=rows_max, index=SOME)
        assert [sort for sort, _ in found] == [sort for _, sort in some]


@simulated()
async def test_any_replica_answers_an_eventually_consistent_query_and_scan(world: World) -> None:
    table = await started_led(world)
    items = {b"a": b"1c", b"b": b"2b", b"c": b"3a"}
    leader = await filled(world, table, items)
    prefix = keys.entry_prefix(keys.collection_of(key_of(table, b"")), SOME)
    whole = keys.table_range(table.id)
    for machine in world.machines:
        for start, end in ((prefix, keys.prefix_end(prefix)), whole):
            found: list[bytes] = []
            at: bytes | None = start
            while at is not None:
                page = await machine.spawn(
                    member(machine).leader_tables.leader_based.read_range(
                        table,
                        at,
                        end,
                        is_consistent=False,
                        rows_max=1,
                        bytes_max=1000,
                        deadline=now_s() + 2.0,
                        index=SOME,
                    )
                )
                found += [value for _, value in page.rows]
                at = page.resume
            assert found == [b"3a", b"1c"]
    assert leader is the_leader(world, table, NAME)


@simulated()
async def test_a_new_leader_makes_the_whole_collection_known_before_it_tells_a_part_of_the_index(world: World) -> None:
    table = await started_led(world)
    items = {b"a": b"1c", b"b": b"2b", b"c": b"3a"}
    first = await filled(world, table, items)
    heir, other = others_than(world, first)
    later = epoch_of(first, table, NAME)
    for number, machine in enumerate(world.machines):  # so that all trees differ
        put_by_hand(machine, table, b"b", Version(*later, 90 + number), Content(b"%d of a machine" % number))
    put_by_hand(other, table, b"z", Version(*later, 99), Content(b"1\x01"))
    first.crash()
    await take_over(heir, table, NAME)
    found = await query(heir, table, rows_max=1)
    assert found[0] == (b"z", b"1\x01")
    assert {sort for sort, _ in found} == {b"a", b"b", b"c", b"z"}


def test_a_new_leader_that_is_asked_for_pages_of_a_scan_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(led_ranges, "PAGE_ROWS", 3)
    play(_scans_of_a_new_leader)


async def _scans_of_a_new_leader(world: World) -> None:
    table = await started_led(world)
    names = _names_of_one_partition(world, table, 5)
    leader = the_leader(world, table, names[0])
    wanted_ = {(name, b"%d" % n): b"%d of %s" % (n, name) for name in names for n in range(4)}
    for (name, sort), value in wanted_.items():
        await put(leader, table, sort, value, name=name)
    await until(lambda: all(len(entries_at(machine)) >= len(wanted_) for machine in world.machines))
    heirs = others_than(world, leader)
    for heir, is_reverse in zip(heirs, (False, True), strict=True):
        known = epoch_of(leader, table, names[0])
        late = b"z" if is_reverse else b"y"
        for number, machine in enumerate(others_than(world, heir)):  # what it has never heard of
            for name in names:
                key = key_of(table, late, name)
                after = encode_register(key, Register(Version(*known, 90 + number), Content(b"late %d" % number)))
                member(machine).trees.write([(table.id, key, machine.engine.get(key), after)])
        wanted_.update({(name, late): b"of any version" for name in names})
        await take_over(heir, table, names[0])
        found: dict[tuple[bytes, bytes], bytes] = {}
        topology = member(heir).topology
        partition = topology.ring.partition_of(token_of(names[0]))
        low, high = topology.partition_range(table, partition, partition)
        while low < high:
            epoch = epoch_of(heir, table, names[0])
            request = ReadRangeLed(0, table.id, low, high, epoch, is_reverse, 2, 1_000_000, BY_END)
            page = await heir.spawn(member(heir).serve(topology.node, request))
            assert isinstance(page, LedRows)
            found.update((keys.split_row_key(keys.row_of(entry))[2:], value) for entry, value in page.rows)
            if page.resume is None:
                break
            low, high = (low, page.resume) if is_reverse else (page.resume, high)
        assert found.keys() == wanted_.keys()
        leader = heir


def _names_of_one_partition(world: World, table: Table, count: int) -> list[bytes]:
    ring = member(world.machines[0]).topology.ring
    found = [b"c%d" % n for n in range(40 * count)]
    return [name for name in found if ring.partition_of(token_of(name)) == 3][:count]


@simulated()
async def test_a_query_waits_for_a_write_that_takes_an_item_out_of_its_range(world: World) -> None:
    table = await started_led(world)
    leader = await filled(world, table, {b"a": b"1c", b"b": b"2b"})
    for machine in others_than(world, leader):
        machine.disk.slow((0.5, 0.5))
    writing = asyncio.create_task(put(leader, table, b"a", b"1\xff"))
    await until(lambda: wanted(table, {b"a": b"1\xff"}) <= set(entries_at(leader)))
    began = now_s()
    start = keys.entry_prefix(keys.collection_of(key_of(table, b"")), BY_END)
    end = start + keys.index_key(b"d")
    request = ReadRangeLed(0, table.id, start, end, epoch_of(leader, table, NAME), False, 10, 1000, BY_END)
    page = await leader.spawn(member(leader).serve(member(leader).topology.node, request))
    assert isinstance(page, LedRows)
    assert [value for _, value in page.rows] == [b"2b"]
    assert now_s() - began > 0.4
    await writing


@simulated()
async def test_an_item_that_a_transaction_holds_stands_in_the_index_for_both_of_its_values(world: World) -> None:
    table = await started_led(world)
    items = {b"a": b"1c", b"b": b"2b"}
    leader = await filled(world, table, items)
    intent = Intent(b"t" * 16, 1, changes=True, value=b"1a")
    version = Version(*epoch_of(leader, table, NAME), 99)
    for machine in world.machines:
        put_by_hand(machine, table, b"a", version, Content(b"1c", intent))
        assert set(entries_at(machine)) == wanted(table, items) | wanted(table, {b"a": b"1a"})
    start = keys.entry_prefix(keys.collection_of(key_of(table, b"")), BY_END)
    for machine in world.machines:
        page = await machine.spawn(
            member(machine).leader_tables.leader_based.read_range(
                table,
                start,
                keys.prefix_end(start),
                is_consistent=False,
                rows_max=10,
                bytes_max=1000,
                deadline=now_s() + 2.0,
                index=BY_END,
            )
        )
        assert [value for _, value in page.rows] == [b"2b", b"1c"]


@simulated()
async def test_an_item_that_moves_while_a_query_waits_for_its_lock_is_found_where_it_stands_then(world: World) -> None:
    table = await started_led(world)
    leader = await filled(world, table, {b"a": b"1c", b"b": b"2b"})
    epoch, intent = epoch_of(leader, table, NAME), Intent(b"t" * 16, 1, changes=True, value=b"1a")
    for machine in world.machines:
        put_by_hand(machine, table, b"a", Version(*epoch, 98), Content(b"1c", intent))
    met: list[bytes] = []

    class Over(NoTransactions):
        """Finds the transaction over, and the item written once more since."""

        async def for_read(self, table: Table, key: bytes, register: Register, *, deadline: float) -> Gone:
            met.append(key)
            for machine in world.machines:
                put_by_hand(machine, table, b"a", Version(*epoch, 99), Content(b"1d"))
            return GONE

    member(leader).leader_tables.leader.items.resolver = Over()
    assert await query(leader, table) == [(b"b", b"2b"), (b"a", b"1d")]
    assert met == [key_of(table, b"a")]


@simulated()
async def test_what_takes_the_place_of_a_damaged_register_takes_its_entries_with_it(world: World) -> None:
    table = await started_led(world)
    items = {b"a": b"1c", b"b": b"2b"}
    leader = await filled(world, table, items)
    victim = others_than(world, leader)[0]
    victim.disk.rot_row(key_of(table, b"a"))
    stored = victim.engine.get(key_of(table, b"a"))
    key = key_of(table, b"a")
    after = encode_register(key, Register(Version(*epoch_of(leader, table, NAME), 99), Content(b"7z")))
    member(victim).trees.replace(
        table.id, member(victim).topology.ring.partition_of(keys.token_in(key)), [(table.id, key, stored, after)]
    )
    assert set(entries_at(victim)) == wanted(table, {b"a": b"7z", b"b": b"2b"})
    assert decode_register(key, victim.engine.get(key)).value == b"7z"
