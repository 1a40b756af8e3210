"""The policy of a table changes on a running cluster: leaders, hints and the ledger follow, nothing is left behind."""

from __future__ import annotations

import asyncio

import pytest

from merganser.core import reshaping
from merganser.model.cluster import Table
from merganser.model.ids import PartitionId, TableId
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Hint
from merganser.model.policy import FIRST_POLICY, Policy
from merganser.service import ledger
from merganser.service.former_ledgers import LOOK_S
from merganser.service.steps import WIRES
from merganser.service.transactions import TransactItem
from merganser.sim.machine import EPOCH_US, Machine
from merganser.sim.steps import Add
from merganser.sim.steps import payload_of as step_payload_of
from merganser.sim.world import World
from merganser.storage import keys
from service.led import payload_of, started_led
from service.plays import ALL, QUORUM, get, key_of, member, now_s, put, simulated, started, until


def current(world: World, table: Table) -> Table:
    return next(known for known in member(world.machines[0]).topology.map.tables if known.id == table.id)


async def begin(world: World, table: Table, policy: Policy) -> None:
    work = member(world.machines[0]).catalog.change_policy(
        current(world, table), policy, definition=b"", now_us=EPOCH_US, deadline=now_s() + 10.0
    )
    await world.machines[0].spawn(work)


def is_over(world: World) -> bool:
    maps = [member(machine).topology.map for machine in world.machines if machine.member is not None]
    return all(one.operation is None and one.epoch == maps[0].epoch for one in maps)


async def changed(world: World, table: Table, policy: Policy) -> Table:
    await begin(world, table, policy)
    await until(lambda: is_over(world))
    return current(world, table)


def holding(world: World, table: TableId) -> set[str]:
    """Return the addresses of the machines whose disks have anything under the keys of a table."""
    found = set()
    for machine in world.machines:
        ranges = (keys.table_range(table), keys.all_hints_range())
        rows = [key for first, last in ranges for key, _ in machine.engine.scan(first, last)]
        found |= {machine.address for key in rows if keys.table_in(key) == table or key.startswith(ranges[1][0])}
    return found


async def put_item(machine: Machine, table: Table, name: bytes, value: bytes) -> None:
    work = member(machine).leader_tables.leader_based.change(
        table, key_of(table, name), WIRES, payload_of("put", value), deadline=now_s() + 10.0
    )
    await machine.spawn(work)


async def item(machine: Machine, table: Table, name: bytes) -> bytes | None:
    work = member(machine).leader_tables.leader_based.read(
        table, key_of(table, name), is_consistent=True, deadline=now_s() + 10.0
    )
    return (await machine.spawn(work)).value


def promised(world: World, rule: int, partition: int) -> list[Epoch]:
    group = Group(rule, PartitionId(partition))
    return [member(machine).leader_tables.promises.of(group) for machine in world.machines]


@simulated()
async def test_groups_of_a_number_of_its_own_inherit_what_was_promised_over_a_crash(world: World) -> None:
    led = await started_led(world)
    kept = [promised(world, 3, partition) for partition in range(16)]
    table = await changed(world, led, Policy(2))
    assert table.rule == FIRST_POLICY
    for machine in world.machines:
        machine.crash()
    await world.start()
    for partition in range(16):
        told = zip(promised(world, table.rule, partition), kept[partition], strict=True)
        assert all(now >= then > Epoch(0, 0) for now, then in told)


@simulated(machines=5)
async def test_items_and_rows_are_there_however_many_replicas_there_are(world: World) -> None:
    led = await started_led(world)
    rows = await world.table(name="rows")
    await until(lambda: all(member(machine).topology.table(rows.id) for machine in world.machines))
    names = [b"%d" % number for number in range(6)]
    for name in names:
        await put_item(world.machines[0], led, name, b"v" + name)
        await put(world.machines[0], rows, name, b"v" + name, level=ALL)
    for n in (5, 2):
        rows = await changed(world, rows, Policy(n))
        led = await changed(world, led, Policy(n))
        assert (rows.n, led.n) == (n, n)
        for name in names:
            assert await get(world.machines[n - 1], rows, name) == b"v" + name
            assert len([m for m in world.machines if m.engine.get(key_of(rows, name))]) == n
            assert len([m for m in world.machines if m.engine.get(key_of(led, name))]) == n
            assert await item(world.machines[n - 1], led, name) == b"v" + name


@simulated(machines=6, data_centers=2)
async def test_nothing_is_left_where_a_table_may_not_be_any_more(world: World) -> None:
    table = await started(world)
    homes = {m.address: m.data_center for m in world.machines}
    for number in range(10):
        await put(world.machines[0], table, b"%d" % number, b"v", level=QUORUM)
    await changed(world, table, Policy(3, replicas=(("dc-0", 3),)))
    await until(lambda: {homes[address] for address in holding(world, table.id)} == {"dc-0"})
    await changed(world, table, Policy(3, replicas=(("dc-1", 3),)))
    await until(lambda: {homes[address] for address in holding(world, table.id)} == {"dc-1"})
    for number in range(10):
        assert await get(world.machines[0], table, b"%d" % number) == b"v"


@simulated(machines=6, data_centers=2)
async def test_a_hint_that_may_not_be_kept_any_more_is_handed_on_and_waited_for(world: World) -> None:
    table = await started(world)
    machine = next(m for m in world.machines if m.data_center == "dc-1")
    await put(machine, table, b"k", b"v", level=ALL)
    await put(machine, table, b"k", b"w", level=ALL)
    hinted = member(machine).hints
    target = member(world.machines[0]).topology.me.number
    row = machine.engine.get(key_of(table, b"k")) or next(
        found for one in world.machines if (found := one.engine.get(key_of(table, b"k"))) is not None
    )
    epoch = member(machine).topology.map.epoch
    await machine.spawn(hinted.keep(machine.node, Hint(epoch, table.id, key_of(table, b"k"), row, target)))
    await changed(world, table, Policy(3, replicas=(("dc-0", 3),)))
    assert not hinted.total()


@simulated()
async def test_a_node_that_is_away_is_waited_for_as_it_may_keep_too_much(world: World) -> None:
    table = await started(world)
    for number in range(20):
        await put(world.machines[0], table, b"k%d" % number, b"v", level=ALL)
    await begin(world, table, Policy(1))
    driver, *_, away = world.machines

    def has_settled() -> bool:
        now = member(driver).topology.map
        is_done = now.policy_of(current(world, table)) == Policy(1)
        return is_done and now.operation is not None and now.pending is None and not now.settling

    await until(has_settled)
    away.crash()
    await asyncio.sleep(30.0)
    assert not is_over(world)
    away.start()
    await world.up(away)
    await until(lambda: is_over(world))
    assert member(away).moving.leftovers.count() == 0


@simulated(machines=6, data_centers=2)
async def test_records_of_transactions_go_where_the_table_goes(world: World) -> None:
    led = await started_led(world)
    near, far = Policy(3, replicas=(("dc-0", 3),)), Policy(3, replicas=(("dc-1", 3),))
    table = await changed(world, led, near)
    told = ledger.id_within(b"t" * 16, member(world.machines[0]).topology.map, [table])
    records = member(world.machines[0]).leader_tables.ledger
    await world.machines[0].spawn(records.made(told, deadline=now_s() + 10.0))
    await changed(world, table, far)
    after = member(world.machines[0]).topology.map
    book = ledger.ledger_of(after, told)
    assert book is not None
    assert (book.policy, after.policy_of(book)) == (table.policy, far)


async def transact(machine: Machine, table: Table, name: bytes, *, token: bytes) -> list[bytes]:
    """Add 1 to an item in a transaction."""
    item = TransactItem(table, key_of(table, name), step_payload_of(Add(1)))
    work = member(machine).leader_tables.transactions.write([item], token=token, digest=b"d", deadline=now_s() + 10.0)
    return await machine.spawn(work)


@simulated(machines=6, data_centers=2)
async def test_a_repeated_transaction_is_not_done_again_after_its_table_has_got_another_policy(world: World) -> None:
    led = await started_led(world)
    await transact(world.machines[0], led, b"k", token=b"t")
    for policy in (Policy(3, replicas=(("dc-0", 3),)), Policy(3, replicas=(("dc-1", 3),)), Policy(2)):
        table = await changed(world, led, policy)
        for machine, found in ((world.machines[1], led), (world.machines[4], table)):
            assert await transact(machine, found, b"k", token=b"t") == [b""]
        assert await item(world.machines[2], table, b"k") == b"1"


@simulated(machines=6, data_centers=2)
async def test_who_does_not_know_of_a_change_finds_the_ledger_barred_and_asks_for_news(world: World) -> None:
    led = await started_led(world)
    await transact(world.machines[0], led, b"other", token=b"other")
    old = member(world.machines[0]).topology.map
    table = await changed(world, led, Policy(3, replicas=(("dc-0", 3),)))
    behind = member(world.machines[0]).leader_tables.ledger
    new = behind._catalog

    class Behind:
        """A catalog that does not know of the change until it asks."""

        current = old

        def __getattr__(self, name: str) -> object:
            return getattr(new, name)

        async def look_for_news(self) -> None:
            self.current = new.current

    behind._catalog = Behind()  # type: ignore[assignment]
    assert await transact(world.machines[1], table, b"k", token=b"t") != [b""]
    assert await transact(world.machines[0], led, b"k", token=b"t") == [b""]
    behind._catalog = new
    assert await item(world.machines[2], table, b"k") == b"1"


@simulated(machines=6, data_centers=2)
async def test_former_ledgers_are_forgotten_when_nobody_can_ask_for_what_they_tell(world: World) -> None:
    led = await started_led(world)
    table = await changed(world, led, Policy(3, replicas=(("dc-0", 3),)))
    for machine in world.machines:
        member(machine).rebalancer.former_ledgers.least_s = 60.0
    away = world.machines[5]
    away.crash()
    assert table.formerly == (0,)
    await asyncio.sleep(60.0 + 3 * LOOK_S)
    assert current(world, led).formerly == (0,)
    away.start()
    await world.up(away)
    began_s = now_s()
    await until(lambda: not current(world, led).formerly, timeout_s=120.0)
    assert now_s() - began_s >= 60.0


@simulated()
async def test_a_table_of_the_same_number_is_led_again_and_keeps_its_items(world: World) -> None:
    led = await started_led(world)
    await put_item(world.machines[0], led, b"k", b"v")
    other = await world.table(name="other")
    await changed(world, other, Policy(2))
    assert await item(world.machines[1], led, b"k") == b"v"
    assert current(world, led).rule == 3


@simulated()
async def test_it_goes_on_when_its_driver_dies_and_is_not_begun_twice(world: World) -> None:
    table = await started(world)
    await put(world.machines[0], table, b"k", b"v", level=ALL)
    await begin(world, table, Policy(1))
    await begin(world, table, Policy(1))
    before = member(world.machines[0]).topology.map
    assert before.operation is not None
    with pytest.raises(Exception, match="another operation is under way"):
        await begin(world, table, Policy(2))
    world.machines[0].crash()
    await world.start()
    await until(lambda: is_over(world))
    assert reshaping.is_done(member(world.machines[0]).topology.map, before.operation)
    assert await get(world.machines[1], table, b"k") == b"v"
