"""Every table of a cluster dropped at once, with what transactions know of them."""

from __future__ import annotations

import asyncio
from typing import cast

from merganser.service.clean_slate import QUIET_S, clean
from merganser.service.transactions import Transactions, TransactItem
from merganser.sim.world import World
from service.plays import key_of, made_with_leaders, member, now_s, simulated, started_with_leaders, until
from service.transactions_by_hand import evaluate

TOKEN = b"the token of a client"


class NeverIdle:
    async def idle(self) -> None:
        await asyncio.Event().wait()


async def prepared(world: World) -> list[TransactItem]:
    for machine in world.machines:
        machine.evaluators = {"sim": evaluate}
    table = await started_with_leaders(world)
    return [TransactItem(table, key_of(table, name), b"=x") for name in (b"a", b"b")]


@simulated()
async def test_all_tables_go_from_every_node_in_one_change(world: World) -> None:
    await prepared(world)
    first, *others = (member(machine) for machine in world.machines)
    await made_with_leaders(world, name="another")
    epoch = first.catalog.current.epoch
    work = clean(first.catalog, first.leader_tables.transactions, deadline=now_s() + 10.0)
    assert await world.machines[0].spawn(work) == 3
    assert (first.catalog.current.tables, first.catalog.current.epoch) == ((), epoch + 1)
    await until(lambda: all(other.catalog.current.tables == () for other in others))


@simulated()
async def test_a_token_is_new_afterwards(world: World) -> None:
    items = await prepared(world)
    first = member(world.machines[0])
    transactions = first.leader_tables.transactions
    await world.machines[0].spawn(transactions.write(items, token=TOKEN, digest=b"1", deadline=now_s() + 10.0))
    await world.machines[0].spawn(clean(first.catalog, transactions, deadline=now_s() + 10.0))
    table = await made_with_leaders(world, name="anew")
    again = [TransactItem(table, key_of(table, b"c"), b"=y")]
    await world.machines[0].spawn(transactions.write(again, token=TOKEN, digest=b"2", deadline=now_s() + 10.0))
    assert transactions.committed == 2


@simulated()
async def test_a_transaction_under_way_is_waited_for(world: World) -> None:
    items = await prepared(world)
    first = member(world.machines[0])
    transactions = first.leader_tables.transactions
    writing = world.machines[0].spawn(transactions.write(items, deadline=now_s() + 10.0))
    await asyncio.sleep(0.0005)
    assert transactions.under_way.count == 1
    await world.machines[0].spawn(clean(first.catalog, transactions, deadline=now_s() + 10.0))
    await writing
    assert (transactions.committed, first.catalog.current.tables) == (1, ())


@simulated()
async def test_one_that_does_not_end_is_not_waited_for_longer_than_a_second(world: World) -> None:
    await prepared(world)
    first = member(world.machines[0])
    began_s = now_s()
    work = clean(first.catalog, cast("Transactions", NeverIdle()), deadline=now_s() + 10.0)
    assert await world.machines[0].spawn(work) == 2
    assert QUIET_S <= now_s() - began_s < QUIET_S + 1.0
    assert first.catalog.current.tables == ()


@simulated()
async def test_an_empty_slate_stays_as_it_is(world: World) -> None:
    await prepared(world)
    first = member(world.machines[0])
    transactions = first.leader_tables.transactions
    for expected in (2, 0):
        work = clean(first.catalog, transactions, deadline=now_s() + 10.0)
        assert await world.machines[0].spawn(work) == expected
