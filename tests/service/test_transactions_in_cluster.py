"""Transactions in a simulated cluster: machines die between any two steps, are stopped, and come back."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from merganser.core.transaction import KEPT_S
from merganser.model.cluster import Table
from merganser.model.errors import MerganserError, TransactionCanceledError, UnknownOutcomeError
from merganser.model.register import UNWRITTEN, Register
from merganser.service.ledger_sweep import LEFT_BEHIND_S, SCAN_S
from merganser.service.steps import WIRES
from merganser.service.transactions import Transactions, TransactItem
from merganser.sim.checkers.serializable import Appended, Ending, Listed, Transaction, anomalies
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.registers import decode_register
from service.plays import key_of, member, now_s, play, simulated, started_with_leaders, until
from service.transactions_by_hand import evaluate

NAMES = (b"a", b"b", b"c", b"d")
TIMEOUT_S = 5.0
SEEDS = 6


async def begun(world: World) -> Table:
    for machine in world.machines:
        machine.evaluators = {"sim": evaluate}
    table = await started_with_leaders(world)
    assert await write(world.machines[0], table, (b"first", b"=1"))  # the ledger is made, and every group is led
    return table


def transactions_of(machine: Machine) -> Transactions:
    return member(machine).leader_tables.transactions


async def write(machine: Machine, table: Table, *steps: tuple[bytes, bytes], token: bytes | None = None) -> list[bytes]:
    items = [TransactItem(table, key_of(table, name), payload) for name, payload in steps]
    work = transactions_of(machine).write(items, token=token, digest=b"", deadline=now_s() + TIMEOUT_S)
    return await machine.spawn(work)


async def get(machine: Machine, table: Table, *names: bytes) -> list[bytes | None]:
    places = [(table, key_of(table, name)) for name in names]
    return await machine.spawn(transactions_of(machine).get(places, deadline=now_s() + TIMEOUT_S))


async def put(machine: Machine, table: Table, name: bytes, payload: bytes) -> bytes:
    items = member(machine).leader_tables.leader_based
    work = items.change(table, key_of(table, name), WIRES, payload, deadline=now_s() + TIMEOUT_S)
    return (await machine.spawn(work)).answer


async def look(machine: Machine, table: Table, name: bytes) -> bytes | None:
    items = member(machine).leader_tables.leader_based
    work = items.read(table, key_of(table, name), is_consistent=True, deadline=now_s() + TIMEOUT_S)
    return (await machine.spawn(work)).value


async def at_last(machine: Machine, table: Table, *names: bytes) -> list[bytes | None]:
    """Read one by one, again and again until it succeeds."""
    while True:
        try:
            return [await look(machine, table, name) for name in names]
        except MerganserError:
            await asyncio.sleep(0.1)


def locked(world: World, table: Table) -> list[bytes]:
    """Return the keys whose latest register, of all that are held, has an intent."""
    start, end = keys.table_range(table.id)
    latest: dict[bytes, Register] = {}
    for machine in world.machines:
        for key, stored in machine.engine.scan(start, end):
            latest[key] = max(decode_register(key, stored), latest.get(key, UNWRITTEN), key=lambda held: held.version)
    return [key for key, register in latest.items() if register.content.intent is not None]


@simulated()
async def test_several_items_are_written_and_read_through_any_node(world: World) -> None:
    table = await begun(world)
    for number, machine in enumerate(world.machines):
        await write(machine, table, *[(name, b"=%d" % number) for name in NAMES])
        assert await get(world.machines[number - 1], table, *NAMES) == [b"%d" % number] * len(NAMES)
    with pytest.raises(TransactionCanceledError):
        await write(world.machines[1], table, (b"a", b"=x"), (b"b", b"?x"))
    assert await look(world.machines[2], table, b"a") == b"2"
    await until(lambda: locked(world, table) == [])


@simulated()
async def test_the_ledger_is_made_once_however_many_need_it_first(world: World) -> None:
    for machine in world.machines:
        machine.evaluators = {"sim": evaluate}
    table = await started_with_leaders(world)
    work = [
        asyncio.create_task(write(machine, table, (b"%d" % number, b"=1")))
        for number, machine in enumerate(world.machines)
    ]
    await asyncio.gather(*work)
    assert [one.name for one in member(world.machines[0]).catalog.tables("system")] == ["transactions"]


@simulated()
async def test_a_token_is_good_for_ten_minutes_whatever_clocks_show(world: World) -> None:
    table = await begun(world)
    await write(world.machines[0], table, (b"a", b"=1"), token=b"t")
    await transactions_of(world.machines[0]).idle()
    await write(world.machines[0], table, (b"a", b"=2"))
    for machine in world.machines:
        machine.skew_us = int(2 * KEPT_S * 1e6)
        await write(machine, table, (b"a", b"=1"), token=b"t")
    await asyncio.sleep(2 * SCAN_S)
    await write(world.machines[1], table, (b"a", b"=1"), token=b"t")
    assert await look(world.machines[2], table, b"a") == b"2"


@simulated()
async def test_nothing_is_left_after_a_transaction(world: World) -> None:
    table = await begun(world)
    await write(world.machines[0], table, (b"a", b"=1"), (b"b", b"=1"))
    await transactions_of(world.machines[0]).idle()
    assert locked(world, table) == []
    (ledger,) = member(world.machines[0]).catalog.tables("system")
    start, end = keys.table_range(ledger.id)
    leader_rows = [row for machine in world.machines for row in machine.engine.scan(start, end)]
    assert {decode_register(key, stored).value for key, stored in leader_rows} <= {None}


def dying(machine: Machine, request: int, *, is_done: bool) -> None:
    """Let ``machine`` lose power at one of the changes that it asks for, before or after that is done."""
    items = member(machine).leader_tables.leader_based
    change, left = items.change, [request]

    async def change_or_die(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == -1 and not is_done:
            machine.crash()
            await asyncio.Future()
        result = await change(*args, **kwargs)
        if left[0] < 0 and is_done:
            machine.crash()
            await asyncio.Future()
        return result

    items.change = change_or_die  # type: ignore[method-assign]


@pytest.mark.plain
@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("request_number", range(9))
def test_whenever_the_power_of_its_coordinator_fails_a_transaction_happens_as_a_whole_or_not_at_all(
    request_number: int, is_done: bool
) -> None:
    """One begin, three prepares, one commit, three applies, one end; the coordinator leads some of the items, too."""

    async def script(world: World) -> None:
        table = await begun(world)
        dies, other = world.machines[0], world.machines[1]
        for name in NAMES:
            await write(other, table, (name, b"=0"))
        await transactions_of(other).idle()
        dying(dies, request_number, is_done=is_done)
        work = asyncio.create_task(write(dies, table, (b"a", b"+1"), (b"b", b"+1"), (b"c", b"?0")))
        await until(lambda: not dies.is_up)
        await asyncio.sleep(0)
        is_answered = work.done()
        seen = await at_last(other, table, *NAMES)
        assert seen in ([b"0", b"0", b"0", b"0"], [b"01", b"01", b"0", b"0"])
        assert seen[0] == b"01" or not is_answered
        dies.start()
        await asyncio.sleep(LEFT_BEHIND_S + 5)
        await world.up(dies)
        assert await at_last(dies, table, *NAMES) == seen
        await until(lambda: locked(world, table) == [])
        work.cancel()

    play(script, seed=1 + request_number)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_transactions_are_strictly_serializable_while_machines_come_and_go(seed: int) -> None:
    history: list[Transaction] = []

    async def script(world: World) -> None:
        table = await begun(world)
        is_over = asyncio.Event()
        hurting = asyncio.create_task(_hurt(world, is_over))
        clients = [asyncio.create_task(_client(world, table, number, history)) for number in range(5)]
        for client in clients:
            await client
        is_over.set()
        await hurting
        await world.start()
        await asyncio.sleep(2 * LEFT_BEHIND_S)
        began = now_s()
        final = await at_last(world.machines[0], table, *NAMES)
        history.append(Transaction(_listed(NAMES, final), began, now_s()))
        await until(lambda: locked(world, table) == [])

    play(script, seed=seed, machines=3 + seed % 3)
    assert list(anomalies(history)) == []
    assert sum(one.ending is Ending.COMMITTED for one in history) > 30


async def _hurt(world: World, is_over: asyncio.Event) -> None:
    rng = random.Random(world.rng.random())
    while not is_over.is_set():
        await asyncio.sleep(rng.uniform(0.2, 2.0))
        machine = rng.choice(world.machines)
        if any(not other.is_up or other.is_paused for other in world.machines):
            continue
        if rng.random() < 0.5:
            machine.crash()
            await asyncio.sleep(rng.uniform(0.0, 3.0))
            machine.start()
        else:
            machine.pause()
            await asyncio.sleep(rng.uniform(0.0, 4.0))
            machine.resume()


async def _client(world: World, table: Table, number: int, history: list[Transaction]) -> None:
    rng = random.Random(number + world.rng.getrandbits(30))
    for turn in range(40):
        await asyncio.sleep(rng.uniform(0, 0.3))
        machine = rng.choice([machine for machine in world.machines if machine.member is not None] or world.machines)
        if machine.member is None:
            continue
        kind = rng.choice(("write", "write", "get", "put", "look"))
        names = rng.sample(NAMES, 1 if kind in ("put", "look") else rng.randint(1, 3))
        element = b"%d.%d" % (number, turn)
        work = asyncio.create_task(_done(machine, table, kind, names, element))
        began = now_s()
        done, _ = await asyncio.wait({work}, timeout=TIMEOUT_S + 1)
        appended = tuple(Appended(name, element) for name in names) if kind in ("put", "write") else ()
        if not done or isinstance(work.exception(), UnknownOutcomeError):
            work.cancel()
            history.append(Transaction(appended, began, ending=Ending.UNKNOWN))
        elif isinstance(work.exception(), MerganserError):
            history.append(Transaction(appended, began, now_s(), Ending.ABORTED))
        else:
            history.append(Transaction((*work.result(), *appended), began, now_s()))


async def _done(machine: Machine, table: Table, kind: str, names: list[bytes], element: bytes) -> tuple[Listed, ...]:
    """Do it; returns what was there before."""
    addition = b"+" + element + b" "
    match kind:
        case "write":
            return _listed(names, await write(machine, table, *[(name, addition) for name in names]))
        case "get":
            return _listed(names, await get(machine, table, *names))
        case "put":
            return _listed(names, [await put(machine, table, names[0], addition)])
    return _listed(names, [await look(machine, table, names[0])])


def _listed(names: Any, values: Any) -> tuple[Listed, ...]:
    return tuple(Listed(name, tuple((value or b"").split())) for name, value in zip(names, values, strict=True))
