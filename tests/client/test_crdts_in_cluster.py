"""Values that merge themselves, tags and policies, by native clients, and simulated nodes."""

from __future__ import annotations

import pytest

from client.by_hand import client, made
from merganser.model import crdt
from merganser.model.cluster import Conflicts
from merganser.model.crdt import Operation
from merganser.model.errors import RequestError, TableExistsError
from merganser.model.versions import MERGING_SINCE
from merganser.sim.world import World
from service.plays import member, simulated, until


async def current(world: World, *, conflicts: Conflicts = "crdt") -> None:
    """Have a table, and all nodes agree on the newest version."""
    await made(world, conflicts=conflicts)
    await until(lambda: all(member(machine).topology.map.version >= MERGING_SINCE for machine in world.machines))


@simulated(machines=5)
async def test_each_type_does_what_it_says_and_reads_as_a_plain_value(world: World) -> None:
    await current(world)
    async with client(world, "ann") as ann, client(world, "ben") as ben:
        home, there = ann.crdt("values", "home"), ben.crdt("values", "home")
        assert await home.get() is None
        assert await home.counter("visits").get() == 0
        assert await home.counter("visits").increment(5)
        assert await there.counter("visits").decrement(2)
        await there.grow_counter("hits").increment()
        await home.set("readers").add("ann", "ben")
        await there.set("readers").remove("ben")
        assert not await there.set("readers").remove("cat")
        await home.register("title").assign("Home")
        await home.multi_register("motto").assign("none")
        await home.flag("open").enable()
        await there.disable_flag("locked").enable()
        await home.distinct("callers").add("x", "y", "x")
        assert await home.maximum("peak").raise_to(7)
        assert not await there.maximum("peak").raise_to(6)
        await home.minimum("low").lower_to(-3)
        await home.map("of", "ann").counter("posts").increment(2)
        assert await there.get() == {
            b"visits": 3,
            b"hits": 1,
            b"readers": {b"ann"},
            b"title": b"Home",
            b"motto": {b"none"},
            b"open": True,
            b"locked": True,
            b"callers": 2,
            b"peak": 7,
            b"low": -3,
            b"of": {b"ann": {b"posts": 2}},
        }
        assert await there.counter("visits").get() == 3
        assert await there.map("of").map("ann").counter("posts").get() == 2
        assert await there.map("of", "ann").get() == {b"posts": 2}
        assert await there.set("visits").get() == frozenset()  # there is no set of that name
        await there.flag("open").disable()
        assert not await home.flag("open").get()
        assert await home.map().remove("of", "motto")
        assert set(await home.map().get()) >= {b"visits", b"title"}
        assert not {b"of", b"motto"} & set(await home.map().get())
        assert await home.counter("visits").reset()
        assert await there.counter("visits").get() == 0
        assert await there.reset()
        assert await home.get() is None
        assert [key async for key in ann.table("values").keys()] == []  # noqa: SIM118


@simulated()
async def test_what_was_not_seen_is_not_removed_and_several_operations_are_made_together(world: World) -> None:
    await current(world)
    async with client(world, "ann") as ann, client(world, "ben") as ben:
        cart = ann.crdt("values", "cart")
        await cart.set().add("milk")
        items, context = await ben.crdt("values", "cart").set().fetch()
        assert items == {b"milk"}
        await cart.set().add("milk")
        await ben.crdt("values", "cart").set().remove("milk", context=context)
        assert await cart.set().get() == {b"milk"}
        page = ann.crdt("values", "page")
        _, nothing = await ben.crdt("values", "later").set().fetch()
        await ann.crdt("values", "later").set().add("milk")
        assert not await ben.crdt("values", "later").set().remove("milk", context=nothing)
        assert await ben.crdt("values", "later").reset()
        add = Operation(crdt.SET, "add", b"ann", (b"readers",))
        count = Operation(crdt.COUNTER, "increment", 2, (b"visits",))
        assert await page.update(add, count)
        assert await page.get() == {b"readers": {b"ann"}, b"visits": 2}
        with pytest.raises(RequestError):
            await page.update(add, Operation(crdt.REGISTER, "assign", b"x", (b"visits",)))
        assert await page.get() == {b"readers": {b"ann"}, b"visits": 2}
        assert [key async for key in ann.table("values").keys()] == [b"cart", b"page"]  # noqa: SIM118


@simulated()
async def test_a_table_is_used_for_what_it_was_made_for(world: World) -> None:
    await current(world)
    async with client(world) as ann:
        await ann.create_table("carts")
        for wrong in (
            ann.table("values").get("k"),
            ann.table("values").put("k", "v"),
            ann.crdt("carts", "k").get(),
            ann.crdt("carts", "k").set().add("x"),
            ann.crdt("carts", "k").counter().increment(),
            ann.crdt("values", "k").set().remove("x", context=b"of another"),
            ann.crdt("values", "k").get(consistency="ANY"),
            ann.crdt("values", "").get(),
        ):
            with pytest.raises(RequestError):
                await wrong
        assert await ann.crdt("values", "k").get() is None
        await ann.crdt("values", "k").set().add("x", consistency="ANY")
        await ann.crdt("values", "m").counter().increment(consistency="w=3,r=1")
        assert await ann.crdt("values", "m").get(consistency="r=1") == 1


@simulated()
async def test_keys_are_found_by_a_tag_page_by_page(world: World) -> None:
    await current(world, conflicts="siblings")
    async with client(world) as ann:
        people = ann.table("values")
        for age in range(12):
            await people.put(f"p{age}", "v", tags=[("age", age), ("city", "Ulm" if age % 2 else "Bonn")])
        found = [one async for one in people.find("age", low=3, high=6)]
        assert [(one.value, one.key) for one in found] == [(age, f"p{age}".encode()) for age in (3, 4, 5, 6)]
        assert [one.key async for one in people.find("age", 7)] == [b"p7"]
        assert len([one async for one in people.find("city", "Ulm")]) == 6
        assert [one.value async for one in people.find("age", is_integer=True)] == list(range(12))
        assert [one async for one in people.find("age")] == []  # of the other index of that name
        for wrong in (people.find("age", 7, low=3), people.find("age", low=3, high="x"), people.find("")):
            with pytest.raises(RequestError):
                await anext(wrong)


@simulated(machines=6, data_centers=2)
async def test_a_table_is_made_where_it_may_be(world: World) -> None:
    await current(world, conflicts="siblings")
    (here, there) = sorted({node.data_center for node in member(world.machines[0]).topology.map.nodes})
    async with client(world) as ann:
        both = await ann.create_table("both", replicas={here: 2, there: 1})
        await both.put("k", "v", consistency="EACH_QUORUM")
        await ann.create_table("one", n=2, data_centers=[here], conflicts="lww")
        await until(lambda: len(member(world.machines[0]).topology.map.tables) >= 3)
        current_map = member(world.machines[0]).topology.map
        policies = {table.name: str(current_map.policy_of(table)) for table in current_map.tables}
        assert policies["both"] == f"{here}=2, {there}=1"
        assert policies["one"] == f"{here}=2"
        await ann.create_table("both", replicas={here: 2, there: 1}, if_absent=True)
        with pytest.raises(TableExistsError, match="has replicas"):
            await ann.create_table("both", replicas={here: 1, there: 2}, if_absent=True)
        for wrong in (
            {"replicas": {here: 0}},
            {"replicas": {"a b": 1}},
            {"replicas": {here: 1}, "data_centers": [here]},
            {"zones": ["nowhere"]},
        ):
            with pytest.raises(RequestError):
                await ann.create_table("wrong", **wrong)
