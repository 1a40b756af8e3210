"""Native clients and simulated nodes: what a client asks is done, whatever it knows of the cluster."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from client.by_hand import client, made
from merganser.client import ValueTable
from merganser.model.errors import (
    PreconditionFailedError,
    RequestError,
    TableExistsError,
    TableNotFoundError,
    UnavailableError,
)
from merganser.model.versions import DESCRIBED_SINCE
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import member, replicas_of, simulated, until


def coordinated(world: World) -> dict[str, int]:
    """How many reads and writes each machine has coordinated."""
    return {machine.address: member(machine).admission.requests.gate.most_in_flight for machine in world.machines}


@simulated(machines=5)
async def test_what_was_put_is_read_by_others_and_replaced_by_who_has_seen_it(world: World) -> None:
    await made(world)
    async with client(world, "ann") as ann, client(world, "ben") as ben:
        context = await ann.table("values").put("k", "milk")
        await ben.table("values").put("k", "bread")
        found = await ann.table("values").get("k")
        assert found.all == [b"milk", b"bread"]
        assert [sibling.written_at_us > 0 and sibling.by_node > 0 for sibling in found.siblings] == [True, True]
        context = await ann.table("values").put("k", "eggs", context=context)
        assert (await ben.table("values").get("k")).all == [b"bread", b"eggs"]
        await ben.table("values").delete("k", context=(await ben.table("values").get("k")).context)
        assert (await ann.table("values").get("k")).value is None
        assert context


@simulated(machines=5)
async def test_only_replicas_of_the_key_are_asked(world: World) -> None:
    table = await made(world)
    async with client(world) as ann:
        for _ in range(20):
            await ann.table("values").put("k", "v")
        counts = coordinated(world)
        mine = {machine.address for machine in replicas_of(world, table, b"k")}
        assert {address for address, most in counts.items() if most} <= mine


@simulated()
async def test_what_is_said_about_a_value_comes_back_and_a_put_may_depend_on_what_is_there(
    world: World,
) -> None:
    await made(world)
    await until(lambda: all(member(machine).topology.map.version >= DESCRIBED_SINCE for machine in world.machines))
    async with client(world) as ann:
        table = ann.table("values")
        said: dict[str, Any] = {"content_type": "text/plain", "metadata": {"b": "2", "a": "1"}, "tags": [("age", 7)]}
        context = await table.put("k", "v", only_if="none_match", **said)
        (found,) = (await table.get("k")).siblings
        assert (found.value, found.content_type, found.metadata) == (b"v", "text/plain", (("a", "1"), ("b", "2")))
        assert [tuple(tag) for tag in found.tags] == [("age", 7)]
        with pytest.raises(PreconditionFailedError, match="there is a value already"):
            await table.put("k", "w", only_if="none_match")
        await table.put("k", "w", context=context, only_if="not_modified")
        with pytest.raises(PreconditionFailedError, match="modified by somebody"):
            await table.delete("k", context=context, only_if="not_modified")
        assert (await table.get("k")).value == b"w"
        await table.put("j", "v", only_if="none_match", consistency="n=3,dw=2,r=2")
        with pytest.raises(RequestError, match="n=5, and table values has 3 replicas"):
            await table.get("j", consistency="n=5,r=1")


@simulated()
async def test_where_the_last_write_wins_there_is_one_value(world: World) -> None:
    await made(world, conflicts="lww")
    async with client(world) as ann:
        table = ann.table("values")
        await table.put("k", "1")
        await table.put("k", "2")
        assert (await table.get("k")).all == [b"2"]
        assert await table.update("k", lambda value: (value or b"") + b"3") == b"23"
        await table.delete("k")
        assert (await table.get("k")).all == []


@simulated()
async def test_a_value_that_expires_reads_as_absent_then(world: World) -> None:
    await made(world)
    async with client(world) as ann:
        await ann.table("values").put("k", "short", ttl_s=1)
        assert (await ann.table("values").get("k")).value == b"short"
        await until_read_as_nothing(ann.table("values"))


async def until_read_as_nothing(table: ValueTable) -> None:
    async with asyncio.timeout(10.0):
        while (await table.get("k")).all:  # noqa: ASYNC110  # on virtual time
            await asyncio.sleep(0.1)


@simulated()
async def test_keys_come_page_by_page_and_each_once(world: World) -> None:
    await made(world)
    async with client(world) as ann:
        table = ann.table("values")
        names = {f"key-{number}".encode() for number in range(40)}
        for name in names:
            await table.put(name, "v")
        await table.put("gone", "v")
        await table.delete("gone")
        found = [key async for key in table.keys()]  # noqa: SIM118
        assert sorted(found) == sorted(names)
        assert sorted([key async for key in table.keys(prefix="key-3")]) == sorted(
            name for name in names if name.startswith(b"key-3")
        )


@simulated()
async def test_tables_are_made_found_and_dropped(world: World) -> None:
    await made(world)
    async with client(world, "ann") as ann, client(world, "ben") as ben:
        table = await ann.create_table("carts")
        await table.put("k", "v")
        assert (await ben.table("carts").get("k")).value == b"v"  # though its map does not name the table
        with pytest.raises(TableExistsError, match="'carts' exists"):
            await ben.create_table("carts")
        await ben.create_table("carts", if_absent=True)
        with pytest.raises(TableExistsError, match="has 3 replicas of each key"):
            await ben.create_table("carts", n=2, if_absent=True)
        with pytest.raises(RequestError, match="are those of tables being restored"):
            await ben.create_table("restoring/carts")
        assert await ben.tables() == ["carts", "values"]
        await ben.drop_table("carts")
        with pytest.raises(TableNotFoundError):
            await ben.table("carts").get("k")
        again = await ann.create_table("carts")
        assert (await again.get("k")).value is None


@simulated()
async def test_what_cannot_be_is_refused_and_nothing_is_written(world: World) -> None:
    await made(world)
    async with client(world) as ann:
        table = ann.table("values")
        for wrong in (
            table.put("", "v"),
            table.put("k" * 2049, "v"),
            table.put("k", b"v" * (1024 * 1024 + 1)),
            table.put("k", "v", context=b"of another"),
            table.put("k", "v", ttl_s=0),
            table.put("k", "v", consistency="MOST"),
            table.get("k", consistency="ANY"),
            ann.create_table(""),
            ann.create_table("x", n=17),
        ):
            with pytest.raises(RequestError):
                await wrong
        assert [key async for key in table.keys()] == []  # noqa: SIM118


@simulated(machines=4)
async def test_a_client_goes_on_when_nodes_die_come_and_are_cut_off(world: World) -> None:
    table = await made(world)
    async with client(world) as ann:
        values = ann.table("values")
        mine: list[Machine] = replicas_of(world, table, b"k")
        context = await values.put("k", "0")
        mine[0].crash()
        for number in range(1, 10):
            context = await values.put("k", str(number), context=context)
        mine[0].start()
        await world.up(mine[0])
        joined = world.add_machine()
        joined.start()
        await world.up(joined)
        await until(lambda: len(member(mine[1]).topology.map.nodes) == 5)
        await values.put("k", "10", context=context)
        await until(lambda: ann.epoch == member(mine[1]).topology.map.epoch or joined.errors)
        assert joined.errors == []
        assert (await values.get("k")).all == [b"10"]


@simulated()
async def test_too_few_replicas_are_told_as_such(world: World) -> None:
    await made(world)
    async with client(world) as ann:
        await ann.table("values").put("k", "v")
        for machine in world.machines[1:]:
            machine.crash()
        with pytest.raises(UnavailableError, match="nothing was written"):
            await ann.table("values").put("k", "w")
        assert (await ann.table("values").get("k", consistency="ONE")).value == b"v"
