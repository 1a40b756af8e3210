"""Key-value tables over the admin port: what goes in comes out, and what is wrong is told and does nothing."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import quote

import orjson
import pytest

from merganser.core import causality
from merganser.model.ids import NodeId
from merganser.model.row import Span
from merganser.net.http import Request
from merganser.net.http_limits import HttpLimits
from merganser.net.peers import Peers
from merganser.node.admin import HEADER, Admin
from merganser.service.value_rules import row_key
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import holders, member, play, simulated, started


class NoPeers:
    def connected(self) -> Mapping[NodeId, bool]:
        return {}


async def ask(
    machine: Machine, action: str, *, body: bytes = b"", has_header: bool = True, **query: str | bytes
) -> tuple[int, dict[str, Any]]:
    told = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    return await ask_as_written(machine, action, told.encode(), body=body, has_header=has_header)


async def ask_as_written(
    machine: Machine, action: str, query: bytes, *, body: bytes = b"", has_header: bool = True
) -> tuple[int, dict[str, Any]]:
    admin = Admin(lambda: cast("Peers", NoPeers()), lambda: member(machine))
    headers = [(HEADER, b"1")] if has_header else []
    work = admin(Request(b"POST", b"/values/%b?%b" % (action.encode(), query), headers, body, "127.0.0.1:1"))
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
    assert await done(one, "create", table="carts") == {
        "table": "carts",
        "n": 3,
        "conflicts": "siblings",
        "policy": "",
    }
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
async def test_a_context_too_long_for_a_request_line_is_taken_back_before_the_body(world: World) -> None:
    await started(world)
    machine = world.machines[0]
    await done(machine, "create", table="carts")
    lives = tuple(Span(99, micros, micros, micros) for micros in range(10, 30_000, 10))
    (carts,) = (table for table in member(machine).topology.map.tables if table.name == "carts")
    long = causality.encode(row_key(carts, b"ann"), lives)
    assert len(long) > HttpLimits().header_bytes_max
    asked: dict[str, Any] = {"table": "carts", "key": "ann"}
    sized: dict[str, Any] = {**asked, "context_bytes": str(len(long))}
    await done(machine, "put", **sized, body=long + b"milk")
    await done(machine, "put", **asked, body=b"bread")
    found = await done(machine, "get", **asked)
    assert [value["text"] for value in found["values"]] == ["milk", "bread"]
    seen = found["context"].encode()
    assert len(seen) > len(long)
    seen = (await done(machine, "put", **asked, context_bytes=str(len(seen)), body=seen + b"both"))["context"].encode()
    assert [value["text"] for value in (await done(machine, "get", **asked))["values"]] == ["both"]
    await done(machine, "delete", **asked, context_bytes=str(len(seen)), body=seen)
    assert (await done(machine, "get", **asked))["values"] == []
    for wrong, reason in (
        ({**sized, "context": "x"}, "exclude each other"),
        (sized, "the body has 4 bytes"),
        ({**asked, "context_bytes": "-1"}, "a number from 0 to 1048576"),
    ):
        status, answer = await ask(machine, "put", **wrong, body=b"milk")
        assert (status, reason in answer["error"]) == (400, True)


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
async def test_what_is_said_about_a_value_comes_back_and_what_a_put_depends_on_is_looked_at(world: World) -> None:
    await started(world)
    one, other, third = world.machines
    await done(one, "create", table="t", conflicts="lww")
    said: dict[str, Any] = {
        "content_type": "text/plain",
        "client": "shop-7",
        "metadata": '{"b": "2", "a": "1"}',
        "tags": '[["age", 5], ["name", "ann"], ["raw", {"base64": "/w=="}]]',
    }
    put: dict[str, Any] = {"table": "t", "key": "k", "body": b"v"}
    new: dict[str, Any] = {"if": "none_match"}
    same: dict[str, Any] = {"if": "not_modified"}
    context = (await done(one, "put", **put, **said, **new, consistency="w=1,dw=2,n=3"))["context"]
    (value,) = (await done(other, "get", table="t", key="k"))["values"]
    assert value["metadata"] == {"a": "1", "b": "2"}
    assert value["tags"] == [["age", 5], ["name", "ann"], ["raw", {"base64": "/w=="}]]
    assert (value["content_type"], value["by_client"], value["text"]) == ("text/plain", "shop-7", "v")
    status, answer = await ask(third, "put", **put, **new)
    assert (status, answer["error"][:24]) == (412, "there is a value already")
    await done(other, "put", **put, context=context, **same)
    status, answer = await ask(third, "delete", table="t", key="k", context=context, **same)
    assert (status, answer["error"][:22]) == (412, "it was modified by som")


@simulated()
async def test_values_are_found_by_their_tags_page_by_page(world: World) -> None:
    await started(world)
    one, other, _ = world.machines
    await done(one, "create", table="t")
    for age in range(5):
        await done(one, "put", table="t", key=f"k{age}", body=b"v", tags=f'[["age", {age}], ["name", "n{age}"]]')
    answer = await done(other, "find", table="t", tag="age", value="3")
    assert answer == {"found": [{"key": {"text": "k3"}, "value": 3}], "from": None}
    page = await done(other, "find", table="t", tag="name", low='"n1"', high='"n3"', limit="2")
    assert [one["value"] for one in page["found"]] == ["n1", "n2"]
    page = await done(one, "find", table="t", tag="name", low='"n1"', high='"n3"', limit="2", **{"from": page["from"]})
    assert [one["value"] for one in page["found"]] == ["n3"]
    every = await done(one, "find", table="t", tag="age", integer="true")
    assert [one["value"] for one in every["found"]] == [0, 1, 2, 3, 4]
    assert (await done(one, "find", table="t", tag="age"))["found"] == []


@simulated()
async def test_tables_and_keys_are_listed_from_where_a_page_ended_and_by_their_beginning(world: World) -> None:
    await started(world)
    machine = world.machines[0]
    for name in ("b", "a", "c"):
        await done(machine, "create", table=name, conflicts="lww" if name == "b" else "siblings")
    page = await done(machine, "tables", limit="2")
    assert [(one["table"], one["conflicts"]) for one in page["tables"]] == [("a", "siblings"), ("b", "lww")]
    page = await done(machine, "tables", limit="2", **{"from": page["from"]})
    assert ([one["table"] for one in page["tables"]], page["from"]) == (["c"], None)
    for key in (b"user-1", b"user-2", b"cart-1", b"\xff"):
        await done(machine, "put", table="b", key=key, body=b"v")
    page = await done(machine, "keys", table="b", prefix="user-")
    assert sorted(key["text"] for key in page["keys"]) == ["user-1", "user-2"]
    assert (await done(machine, "keys", table="b", prefix=b"\xff"))["keys"] == [{"base64": "/w=="}]


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
        (
            "put",
            {**GOOD, "contxt": "x"},
            "unknown: contxt; put takes client, consistency, content_type, context, context_bytes, if, key, metadata, ",
        ),
        ("put", {**GOOD, "if": "sometimes"}, "if is not_modified or none_match, not 'sometimes'"),
        ("put", {**GOOD, "metadata": "[]"}, "metadata is an object of texts in JSON"),
        ("put", {**GOOD, "tags": '[["age"]]'}, "tags is an array of"),
        ("put", {**GOOD, "tags": '[["age", {"base64": "!"}]]'}, "tags is an array of"),
        ("put", {**GOOD, "tags": f'[["age", 1{"0" * 400}]]'}, f"tag age is 1{'0' * 39}: an integer has 64 bits"),
        ("find", {"table": "t", "tag": "a", "low": f"1{'0' * 400}"}, "an integer has 64 bits"),
        ("put", {**GOOD, "content_type": "a\nb"}, "a content type is 255 printable characters at most"),
        ("put", {**GOOD, "client": b"\xff"}, "client must be UTF-8"),
        ("put", {**GOOD, "consistency": "w=2,n=5"}, "n=5, and table t has 3 replicas of each key"),
        ("put", {**GOOD, "consistency": "dw=4"}, "dw=4, and table t has 3 replicas of each key"),
        ("put", {**GOOD, "consistency": "pw=4"}, "pw=4 and the table has 3 replicas"),
        ("put", {**GOOD, "consistency": "w=2,q=5"}, "'q=5' is none of w, pw, dw, r, pr and n"),
        ("find", {"table": "t", "tag": "a", "value": "x"}, 'a tag is 5, "text" or {"base64"'),
        ("find", {"table": "t", "tag": "a", "value": "1", "low": "1"}, "value is exact"),
        ("find", {"table": "t", "tag": "a", "low": "1", "high": '"b"'}, "a range is of integers, or of bytes"),
        ("find", {"table": "t", "tag": ""}, "a tag's name is 1 to 128 printable bytes"),
        ("find", {"table": "t", "tag": "a", "integer": "yes"}, "integer is true or false"),
        ("find", {"table": "t", "tag": "a", "from": "AAAA"}, "the place to go on from is of another query"),
        ("find", {"table": "t", "tag": "a", "from": "!"}, "from must be what the page before told"),
        ("create", {"table": "u", "conflicts": "none"}, "conflicts is siblings or lww or crdt, not 'none'"),
        ("get", {**GOOD, "context": "x"}, "unknown: context; get takes consistency, key, table"),
        ("get", {**GOOD, "consistency": "ANY"}, "ANY is for writes"),
        ("keys", {"table": "t", "from": "AAAA"}, "from must be what the page before told"),
        ("keys", {"table": "t", "from": "?"}, "from must be what the page before told"),
        ("keys", {"table": "t", "limit": "1001"}, "limit must be a number from 1 to 1000"),
        ("create", {"table": "u", "replicas": "eu=2"}, "no node that owns anything is in data centre 'eu'"),
        ("create", {"table": "u", "replicas": "many"}, "'many' is no number of replicas"),
        ("create", {"table": "u", "zones": "zone-0,zone-9"}, "is in zone 'zone-9'; there are 'zone-0'"),
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


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (b"table=t&key=%zz", "key: '%zz' is no percent-encoded byte: write two hex digits, and % as %25"),
        (b"table=t&key=100%", "key: '%' is no percent-encoded byte"),
        (b"table=t&key=%4", "key: '%4' is no percent-encoded byte"),
        (b"table=%+t&key=k", "table: '%+t' is no percent-encoded byte"),
        (b"%k=5", "a name: '%k=' is no percent-encoded byte"),
    ],
)
def test_what_is_not_percent_encoded_is_not_taken_as_it_is(query: bytes, reason: str) -> None:
    async def script(world: World) -> None:
        await started(world)
        machine = world.machines[0]
        await done(machine, "create", table="t")
        status, told = await ask_as_written(machine, "put", query, body=b"v")
        assert status == 400
        assert reason in told["error"]
        assert (await done(machine, "keys", table="t"))["keys"] == []

    play(script)


@simulated(machines=4, data_centers=2)
async def test_a_table_is_made_where_it_is_to_be(world: World) -> None:
    await started(world)
    machine = world.machines[0]
    made = await done(machine, "create", table="near", replicas="dc-0=2", zones="zone-0,zone-1")
    assert (made["n"], made["policy"]) == (2, "dc-0=2 in zones zone-0, zone-1")
    await done(machine, "put", table="near", key="k", body=b"v", consistency="LOCAL_QUORUM")
    table = await member(machine).catalog.table("values", "near", deadline=60.0)
    assert set(holders(world, table, b"k")) == {m.address for m in world.machines if m.data_center == "dc-0"}


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
        "there is no such thing; below /values/ there are create, drop, tables, get, put, delete, find, "
        "update, session, keys",
    )
