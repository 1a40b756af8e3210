"""Values that merge themselves over the admin port: operations go in, plain values come out, what is wrong is told."""

from __future__ import annotations

import orjson
import pytest

from merganser.sim.machine import Machine
from merganser.sim.world import World
from node.test_admin_values import ask, done
from service.plays import simulated, started


async def update(machine: Machine, key: str, *operations: dict[str, object], **query: str) -> bool:
    body = orjson.dumps(operations)
    return bool((await done(machine, "update", table="t", key=key, body=body, **query))["made"])


def operation(kind: str, action: str, value: object = None, *path: object) -> dict[str, object]:
    return {"type": kind, "action": action, "value": value, "path": list(path)}


@simulated()
async def test_an_update_through_one_node_is_read_as_plain_values_through_another(world: World) -> None:
    await started(world)
    one, other, third = world.machines
    assert (await done(one, "create", table="t", conflicts="crdt"))["conflicts"] == "crdt"
    assert await update(
        one, "ann", operation("counter", "increment", 5, "visits"), operation("set", "add", "milk", "basket")
    )
    assert await update(other, "ann", operation("counter", "decrement", 2, "visits"))
    assert await update(other, "ann", operation("flag", "enable", None, "profile", {"base64": "/w=="}))
    (told,) = (await done(third, "get", table="t", key="ann"))["values"]
    assert told == {
        "type": "map",
        "value": [
            {"name": {"text": "basket"}, "type": "set", "value": [{"text": "milk"}]},
            {
                "name": {"text": "profile"},
                "type": "map",
                "value": [{"name": {"base64": "/w=="}, "type": "flag", "value": True}],
            },
            {"name": {"text": "visits"}, "type": "counter", "value": 3},
        ],
    }
    assert [key["text"] for key in (await done(one, "keys", table="t"))["keys"]] == ["ann"]
    await done(other, "delete", table="t", key="ann")
    assert (await done(third, "get", table="t", key="ann"))["values"] == []
    assert (await done(one, "keys", table="t"))["keys"] == []


@simulated()
async def test_an_update_with_an_id_is_made_once_through_whatever_node(world: World) -> None:
    await started(world)
    await done(world.machines[0], "create", table="t", conflicts="crdt")
    session = (await done(world.machines[0], "session", table="t"))["session"]
    for machine in (*world.machines, *world.machines):
        assert await update(machine, "hits", operation("counter", "increment", 7), id=f"{session}:1")
    assert (await done(world.machines[1], "get", table="t", key="hits"))["values"] == [{"type": "counter", "value": 7}]
    status, told = await ask(
        world.machines[2],
        "update",
        table="t",
        key="hits",
        id=f"{session}:3",
        body=orjson.dumps([operation("counter", "increment", 7)]),
    )
    assert status == 400
    assert "update 3 of a session that has made 1" in told["error"]


@simulated()
async def test_a_remove_with_a_context_spares_what_that_has_not_seen(world: World) -> None:
    await started(world)
    one, other, _ = world.machines
    await done(one, "create", table="t", conflicts="crdt")
    await update(one, "k", operation("set", "add", "milk"))
    context = (await done(other, "get", table="t", key="k"))["context"]
    await update(other, "k", operation("set", "add", "milk"))
    await update(one, "k", operation("set", "remove", "milk"), context=context)
    assert (await done(one, "get", table="t", key="k"))["values"][0]["value"] == [{"text": "milk"}]
    assert await update(one, "k", operation("set", "remove", "milk"))
    assert not await update(one, "k", operation("set", "remove", "milk")), "there is nothing to change"
    assert (await done(other, "get", table="t", key="k"))["values"] == []


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([operation("set", "add", "x")], "the key holds a counter, and no set"),
        ([operation("map", "reset", None, "a"), operation("flag", "enable", None, "a")], "the key holds a counter"),
        ([operation("sets", "add", "x")], "there is no type 'sets'"),
        ([operation("set", "push", "x")], "a set has no action 'push'"),
        ([operation("counter", "increment", 0)], "takes a number from 1 to"),
        ([operation("counter", "increment", "5")], "takes a whole number"),
        ([operation("grow-counter", "decrement", 5)], "has no action 'decrement'"),
        ([operation("set", "add", "x" * 5000)], "takes 4,096 bytes at most"),
        ([operation("set", "add", "x", *["f"] * 9)], "9 fields deep, of 8 at most"),
        ([operation("set", "add", "x", "")], "the name of a field must be 1 to 255 bytes"),
        ([operation("flag", "enable", "x")], "takes no value"),
        ([], "an update without an operation"),
        (
            [operation("counter", "increment", 1)] * 101,
            "more than 100 operations in one update, of which each element is one: split it",
        ),
        ({"type": "set"}, "an update is an array of operations"),
    ],
)
def test_what_cannot_be_made_is_told_and_changes_nothing(given: object, complaint: str) -> None:
    @simulated()
    async def told(world: World) -> None:
        await started(world)
        machine = world.machines[0]
        await done(machine, "create", table="t", conflicts="crdt")
        await update(machine, "k", operation("counter", "increment", 1))
        status, answer = await ask(machine, "update", table="t", key="k", body=orjson.dumps(given))
        assert status == 400
        assert complaint in answer["error"]
        assert (await done(machine, "get", table="t", key="k"))["values"] == [{"type": "counter", "value": 1}]

    told()


@simulated()
async def test_tables_of_other_kinds_are_told_apart(world: World) -> None:
    await started(world)
    machine = world.machines[0]
    await done(machine, "create", table="s")
    await done(machine, "create", table="t", conflicts="crdt")
    body = orjson.dumps([operation("flag", "enable")])
    status, told = await ask(machine, "update", table="s", key="k", body=body)
    assert (status, "do not merge themselves" in told["error"]) == (400, True)
    status, told = await ask(machine, "put", table="t", key="k", body=b"v")
    assert (status, "its values are of kind crdt" in told["error"]) == (400, True)
