"""Values are found by their tags through any node, whatever brought them to the replicas that are asked."""

from __future__ import annotations

import pytest

from merganser.core import tags
from merganser.model.cluster import Conflicts, Table
from merganser.model.contents import Content, Tag
from merganser.model.errors import RequestError, UnavailableError
from merganser.service import tag_index
from merganser.service.tag_queries import TaggedPage
from merganser.sim.machine import Machine
from merganser.sim.world import World
from merganser.storage import keys
from merganser.storage.engine import Batch
from service.plays import (
    ALL,
    ONE,
    QUORUM,
    TIMEOUT_S,
    key_of,
    member,
    now_s,
    play,
    replicas_of,
    simulated,
    started_with_values,
    until,
)


async def put(
    machine: Machine,
    table: Table,
    name: bytes,
    *values: int | bytes,
    context: bytes = b"",
    expires_at_s: int | None = None,
    level: object = ALL,
) -> bytes:
    content = Content(b"v", tags=tuple(Tag("t", value) for value in values))
    work = member(machine).key_values.put(
        table,
        key_of(table, name),
        content,
        context=context,
        expires_at_s=expires_at_s,
        level=level,  # type: ignore[arg-type]
        deadline=now_s() + TIMEOUT_S,
    )
    return await machine.spawn(work)


async def find(
    machine: Machine,
    table: Table,
    low: int | bytes | None,
    high: int | bytes | None = None,
    *,
    resume: bytes | None = None,
    most: int = 100,
    level: object = QUORUM,
) -> TaggedPage:
    work = member(machine).tag_queries.find(
        table,
        "t",
        low=low,
        high=low if high is None else high,
        is_integer=isinstance(low, int),
        resume=resume,
        most=most,
        level=level,  # type: ignore[arg-type]
        deadline=now_s() + TIMEOUT_S,
    )
    return await machine.spawn(work)


def names(page: TaggedPage) -> list[bytes]:
    return [one.key for one in page.found]


def place_of(machine: Machine, table: Table, name: bytes) -> tag_index.Place:
    return table.id, member(machine).topology.ring.partition_of(keys.token_in(key_of(table, name)))


@pytest.mark.parametrize("conflicts", ["siblings", "lww"])
def test_a_range_is_told_in_the_order_of_its_values_page_by_page(conflicts: Conflicts) -> None:
    async def script(world: World) -> None:
        table = await started_with_values(world, conflicts)
        for number in range(20):
            await put(world.machines[number % 3], table, b"k%d" % number, number - 10, b"%d" % (number % 3))
        told: list[tuple[int | bytes, bytes]] = []
        page = await find(world.machines[0], table, -5, 7, most=4)
        while True:
            told += page.found
            assert len(page.found) <= 4
            if page.resume is None:
                break
            page = await find(world.machines[1], table, -5, 7, most=4, resume=page.resume)
        assert told == [(value, b"k%d" % (value + 10)) for value in range(-5, 8)]
        exact = await find(world.machines[2], table, b"1")
        assert sorted(names(exact)) == sorted(b"k%d" % number for number in range(20) if number % 3 == 1)

    play(script)


@simulated()
async def test_a_key_has_the_tags_of_all_its_siblings_and_none_of_those_that_were_replaced(world: World) -> None:
    table = await started_with_values(world)
    one, other, third = world.machines
    seen = await put(one, table, b"k", 1)
    await put(other, table, b"k", 2)
    assert names(await find(third, table, 1)) == names(await find(third, table, 2)) == [b"k"]
    await put(other, table, b"k", 3, context=seen)
    assert names(await find(third, table, 1)) == []
    assert [value for value, _ in (await find(third, table, 1, 3)).found] == [2, 3]
    key = key_of(table, b"k")
    found = await one.spawn(member(one).key_values.get(table, key, level=ALL, deadline=now_s() + TIMEOUT_S))
    await one.spawn(
        member(one).key_values.delete(table, key, context=found.context, level=ALL, deadline=now_s() + TIMEOUT_S)
    )
    assert names(await find(third, table, 1, 3)) == []
    assert [member(machine).tags.entries(place_of(machine, table, b"k")) for machine in world.machines] == [set()] * 3


@simulated()
async def test_a_replica_that_missed_a_put_hides_it_from_no_query_at_quorum(world: World) -> None:
    table = await started_with_values(world)
    first, second, third = replicas_of(world, table, b"k")
    seen = await put(first, table, b"k", 1)
    world.cut_off(third)
    await put(first, table, b"k", 2, context=seen, level=QUORUM)
    world.network.heal()
    for machine in (first, second, third):
        assert names(await find(machine, table, 2)) == [b"k"]
        assert names(await find(machine, table, 1)) == []


@simulated()
async def test_what_has_expired_is_not_found(world: World) -> None:
    table = await started_with_values(world)
    machine = world.machines[0]
    await put(machine, table, b"k", 1, expires_at_s=machine.wall_us() // 1_000_000 + 5)
    assert names(await find(machine, table, 1)) == [b"k"]
    start_s = now_s()
    await until(lambda: now_s() > start_s + 7)
    assert names(await find(machine, table, 1)) == []


@simulated()
async def test_an_entry_that_its_row_does_not_bear_out_is_dropped_by_who_meets_it(world: World) -> None:
    table = await started_with_values(world)
    await put(world.machines[0], table, b"k", 1)
    stray = key_of(table, b"other")
    for machine in world.machines:
        place = place_of(machine, table, b"other")
        entry = tag_index._entry(place, Tag("t", 1), stray)
        machine.engine.commit(Batch().put(entry, b""))
    assert names(await find(world.machines[0], table, 1, level=ALL)) == [b"k"]
    left = [member(machine).tags.entries(place_of(machine, table, b"other")) for machine in world.machines]
    assert all(not any(entry.endswith(stray[4:]) for entry in entries) for entries in left)


@simulated()
async def test_a_place_whose_entries_cannot_be_read_is_made_anew_and_asked_elsewhere_meanwhile(world: World) -> None:
    table = await started_with_values(world)
    for number in range(30):
        await put(world.machines[0], table, b"k%d" % number, number)
    broken = member(world.machines[0])
    place = place_of(world.machines[0], table, b"k7")
    before = broken.tags.entries(place)
    batch = Batch()
    broken.tags._break(place, batch)
    world.machines[0].engine.commit(batch)
    assert broken.tags.entries(place) == set()
    assert names(await find(world.machines[0], table, 7)) == [b"k7"]
    await until(lambda: not broken.tags.is_broken(place))
    assert broken.tags.entries(place) == before
    assert names(await find(world.machines[0], table, 7, level=ONE)) == [b"k7"]


@simulated()
async def test_entries_go_with_their_table(world: World) -> None:
    table = await started_with_values(world)
    await put(world.machines[0], table, b"k", 1)
    place = place_of(world.machines[0], table, b"k")
    assert all(member(machine).tags.entries(place) for machine in world.machines)
    catalog = member(world.machines[0]).catalog
    await world.machines[0].spawn(catalog.drop_table(table, deadline=now_s() + 10))
    await until(lambda: not any(member(machine).tags.entries(place) for machine in world.machines))


@simulated()
async def test_too_few_replicas_are_told_and_tables_without_tags_refused(world: World) -> None:
    table = await started_with_values(world)
    plain = await world.table("plain")
    one, other, third = world.machines
    with pytest.raises(RequestError, match="holds no values that have tags"):
        await find(one, plain, 1)
    with pytest.raises(RequestError, match="a page is 1 to 1000 rows"):
        await find(one, table, 1, most=0)
    other.crash()
    third.crash()
    with pytest.raises(UnavailableError, match="QUORUM needs 2 of 3 replicas of partition"):
        await find(one, table, 1)
    assert names(await find(one, table, 1, level=ONE)) == []


def test_the_entries_of_a_row_are_its_tags() -> None:
    place = (1, 2)
    key = keys.row_key(1, 5, b"k")  # type: ignore[arg-type]
    entry = tag_index._entry(place, Tag("t", 1), key)  # type: ignore[arg-type]
    assert entry.endswith(tags.place_of(1, key))
