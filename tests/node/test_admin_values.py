"""Key-value tables over the admin port: what goes in comes out, and what is wrong is told and does nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

import orjson
import pytest

from merganser.model.ids import NodeId
from merganser.net.http import Request
from merganser.net.peers import Peers
from merganser.node.admin import HEADER, Admin
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import holders, member, play, simulated, started


class NoPeers:
    def connected(self) -> Mapping[NodeId, bool]:
        return {}


async def ask(
    machine: Machine, action: str, *, body: bytes = b"", has_header: bool = True, **query: str | bytes
) -> tuple[int, dict[str, Any]]:
    admin = Admin(lambda: cast("Peers", NoPeers()), lambda: member(machine))
    told = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    headers = [(HEADER, b"1")] if has_header else []
    work = admin(Request(b"POST", f"/values/{action}?{told}".encode(), headers, body, "127.0.0.1:1"))
    response = await machine.spawn(_whole(work))
    assert isinstance(response.body, bytes)
    return response.status, orjson.loads(response.body)


async def _whole(work: Any) -> Any:
    return await work


async def done(machine: Machine, action: str, **options: Any) -> dict[str, Any]:
    status, answer = await ask(machine, action, **options)
    assert status == 200, answer
    return answer


@simulated()
async def test_siblings_are_told_with_who_wrote_them_when_and_replaced_with_their_context(world: World) -> None:
    await started(world)
    one, other, third = world.machines
    assert await done(one, "create", table="carts") == {"table": "carts", "n": 3}
    await done(one, "put", table="carts", key="ann", body=b"milk")
    await done(other, "put", table="carts", key="ann", body=b"bread")
    found = await done(third, "get", table="carts", key="ann")
    assert [value["text"] for value in found["values"]] == ["milk", "bread"]
    assert [value["by_node"] for value in found["values"]] == [member(m).topology.me.number for m in (one, other)]
    assert found["values"][0]["written_at_us"] <= one.wall_us()
    context = (await done(one, "put", table="carts", key="ann", body=b"both", context=found["context"]))["context"]
    assert [value["text"] for value in (await done(third, "get", table="carts", key="ann"))["values"]] == ["both"]
    await done(other, "delete", table="carts", key="ann", context=context)
    assert (await done(third, "get", table="carts", key="ann"))["values"] == []


@simulated()
async def test_keys_and_values_are_any_bytes_and_may_expire(world: World) -> None:
    await started(world)
    machine = world.machines[0]
    await done(machine, "create", table="blobs", n="2")
    key, value = bytes(range(256)), b"\xff\x00"
    await done(machine, "put", table="blobs", key=key, body=value, ttl_s="1000", consistency="w=2,pw=1")
    (told,) = (await done(machine, "get", table="blobs", key=key, consistency="ALL"))["values"]
    assert base64.b64decode(told["base64"]) == value
    assert told["expires_at_s"] >= machine.wall_us() // 1_000_000 + 999


@simulated()
async def test_keys_are_listed_page_by_page_each_once_and_without_those_that_are_gone(world: World) -> None:
    await started(world)
    machine = world.machines[0]
    await done(machine, "create", table="t")
    for number in range(40):
        await done(machine, "put", table="t", key=str(number), body=b"v")
    await done(machine, "put", table="t", key=b"\xff", body=b"v")
    for number in range(10):
        context = (await done(machine, "get", table="t", key=str(number)))["context"]
        await done(machine, "delete", table="t", key=str(number), context=context)
    told: list[dict[str, str]] = []
    page = await done(machine, "keys", table="t", limit="7")
    while page["from"] is not None:
        assert len(page["keys"]) <= 7
        told += page["keys"]
        page = await done(world.machines[1], "keys", table="t", limit="7", **{"from": page["from"]})
    told += page["keys"]
    texts = [key.get("text") for key in told]
    assert sorted(texts, key=str) == sorted([*map(str, range(10, 40)), None], key=str)
    assert {"base64": "/w=="} in told


@simulated()
async def test_a_dropped_table_is_gone_and_its_name_may_be_used_again(world: World) -> None:
    await started(world)
    machine = world.machines[0]
    await done(machine, "create", table="t")
    assert (await ask(machine, "create", table="t"))[0] == 400
    await done(machine, "put", table="t", key="k", body=b"v")
    await done(machine, "drop", table="t")
    status, told = await ask(machine, "get", table="t", key="k")
    assert (status, told["error"]) == (400, "table t does not exist")
    await done(machine, "create", table="t")
    assert (await done(machine, "get", table="t", key="k"))["values"] == []


@simulated()
async def test_what_cannot_be_done_now_says_whether_anything_was_written(world: World) -> None:
    await started(world)
    machine, *others = world.machines
    await done(machine, "create", table="t")
    for other in others:
        other.pause()
    status, told = await ask(machine, "put", table="t", key="k", body=b"v")
    assert status == 504
    assert "it is unknown whether the write will be seen" in told["error"]
    for other in others:
        other.resume()
        other.crash()
    status, told = await ask(machine, "put", table="t", key="k", body=b"v")
    assert status == 503
    assert "none was asked" in told["error"]


GOOD = {"table": "t", "key": "k"}


@pytest.mark.parametrize(
    ("action", "query", "reason"),
    [
        ("put", {"table": "t"}, "key must be 1 to 2,048 bytes, not 0"),
        ("put", {"table": "t", "key": "k" * 2049}, "key must be 1 to 2,048 bytes, not 2,049"),
        ("put", {"table": "", "key": "k"}, "table must be 1 to 255 characters"),
        ("put", {"table": b"\xff", "key": "k"}, "table must be UTF-8"),
        ("put", {"table": "other", "key": "k"}, "table other does not exist"),
        ("put", {**GOOD, "consistency": "SOME"}, "consistency: choose one of ONE"),
        ("put", {**GOOD, "consistency": "w=9"}, "w=9 and the table has 3 replicas"),
        ("put", {**GOOD, "ttl_s": "soon"}, "ttl_s must be a number from 1 to 1000000000, not 'soon'"),
        ("put", {**GOOD, "ttl_s": "0"}, "ttl_s must be a number from 1"),
        ("put", {**GOOD, "context": "x"}, "the context is no token of this database"),
        ("put", {**GOOD, "contxt": "x"}, "unknown: contxt; put takes consistency, context, key, table, ttl_s"),
        ("get", {**GOOD, "context": "x"}, "unknown: context; get takes consistency, key, table"),
        ("get", {**GOOD, "consistency": "ANY"}, "ANY is for writes"),
        ("keys", {"table": "t", "from": "AAAA"}, "from must be what the page before told"),
        ("keys", {"table": "t", "from": "?"}, "from must be what the page before told"),
        ("keys", {"table": "t", "limit": "1001"}, "limit must be a number from 1 to 1000"),
        ("create", {"table": "u", "n": "17"}, "n must be a number from 1 to 16, not '17'"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(action: str, query: dict[str, Any], reason: str) -> None:
    async def script(world: World) -> None:
        await started(world)
        machine = world.machines[0]
        await done(machine, "create", table="t")
        status, told = await ask(machine, action, body=b"v", **query)
        assert status == 400
        assert reason in told["error"]
        table = await member(machine).catalog.table("values", "t", deadline=60.0)
        assert holders(world, table, b"k") == []

    play(script)


@simulated()
async def test_no_page_of_a_browser_reads_or_writes(world: World) -> None:
    await started(world)
    machine = world.machines[0]
    await done(machine, "create", table="t")
    for action in "put", "get", "delete", "drop", "create":
        assert (await ask(machine, action, has_header=False, table="t", key="k"))[0] == 403
    status, told = await ask(machine, "list", table="t")
    assert (status, told["error"]) == (
        404,
        "there is no such thing; below /values/ there are create, drop, get, put, delete, keys",
    )
