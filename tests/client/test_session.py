"""Whom a client asks, what it asks again, and what it raises: nodes made by hand, on virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from client.by_hand import NODES, Nodes, a_map, client_of, on_virtual_time
from merganser import Client
from merganser.client.errors import FRESH as CLIENTS_FRESH
from merganser.client.errors import SiblingsError
from merganser.core.nearness import Nearness
from merganser.model.client_messages import ClientPut, KeysAre, PutIs, ValueIs, ValuesAre
from merganser.model.errors import (
    CorruptionError,
    OverloadedError,
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    RequestError,
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import ClusterId, NodeId
from merganser.model.messages import Request
from merganser.service import founding


def value(data: bytes = b"milk", epoch: int = 1) -> ValuesAre:
    return ValuesAre((ValueIs(data, 1, 1),), b"seen", epoch)


def asked(nodes: Nodes) -> list[NodeId]:
    return [node for node, _ in nodes.asked]


async def turns() -> None:
    """Let what was answered be heard."""
    for _ in range(5):
        await asyncio.sleep(0)


@on_virtual_time
async def test_a_replica_of_the_key_is_asked_and_no_other_node() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: value())
    async with client_of(nodes) as client:
        for number in range(30):
            key = f"key-{number}"
            assert (await client.table("t").get(key)).value == b"milk"
            assert nodes.asked.pop()[0] in client.replicas("t", key)


@on_virtual_time
async def test_a_write_goes_to_the_next_node_when_nothing_was_done() -> None:
    turned_down = iter(
        [
            PeerUnreachableError("not sent"),
            RefusedError("overloaded", "too much to do"),
            RefusedError("unavailable", "too few replicas"),
            RefusedError(founding.FRESH, "no member"),
        ]
    )
    nodes = Nodes(a_map(), lambda _node, _request: next(turned_down, None) or PutIs(b"next", 1))
    async with client_of(nodes) as client:
        assert await client.table("t").put("k", b"v", context=b"") == b"next"
        assert len(nodes.asked) == 5
        assert set(asked(nodes)) == set(NODES)
        assert set(asked(nodes)[:3]) == set(client.replicas("t", "k"))
    assert founding.FRESH == CLIENTS_FRESH


@pytest.mark.parametrize(
    "failure",
    [
        PeerLostError("the connection broke"),
        RefusedError("unknown_outcome", "one replica may have it"),
        RefusedError("internal", "a bug"),
        RefusedError("of_a_later_release", "what is that?"),
    ],
    ids=lambda error: getattr(error, "code", "lost"),
)
def test_a_write_whose_outcome_is_not_known_is_not_sent_again(failure: Exception) -> None:
    @on_virtual_time
    async def script() -> None:
        nodes = Nodes(a_map(), lambda _node, _request: failure)
        async with client_of(nodes) as client:
            with pytest.raises(UnknownOutcomeError, match="may have been written, now or later: read the key"):
                await client.table("t").put("k", b"v", context=b"")
            assert len(nodes.asked) == 1

    script()


@on_virtual_time
async def test_a_read_is_asked_of_another_node_whatever_has_become_of_it() -> None:
    failures = iter([PeerLostError("lost"), RefusedError("internal", "a bug"), RefusedError("corruption", "damaged")])
    nodes = Nodes(a_map(), lambda _node, _request: next(failures, None) or value())
    async with client_of(nodes) as client:
        assert (await client.table("t").get("k")).value == b"milk"
        assert len(nodes.asked) == 4


@on_virtual_time
async def test_a_request_that_is_wrong_is_raised_as_the_node_did_and_not_repeated() -> None:
    for code, kind in ("request", RequestError), ("table_not_found", TableNotFoundError):
        nodes = Nodes(a_map(), lambda _node, _request, code=code: RefusedError(code, "no such thing"))  # type: ignore[misc]
        async with client_of(nodes) as client:
            for work in client.table("t").get("k"), client.table("t").put("k", b"v", context=b""):
                with pytest.raises(kind, match="no such thing") as raised:
                    await work
                assert type(raised.value) is kind
            assert len(nodes.asked) == 2


@on_virtual_time
async def test_a_slow_read_is_asked_of_one_more_and_the_first_answer_counts() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: value() if len(nodes.asked) == 2 else None)
    async with client_of(nodes) as client:
        began = asyncio.get_running_loop().time()
        assert (await client.table("t").get("k")).value == b"milk"
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.1, abs=0.01)
        assert len(set(asked(nodes))) == 2
        assert client.hedges == 1


@on_virtual_time
async def test_a_cluster_that_is_slow_for_all_is_not_asked_everything_twice() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: None)
    async with client_of(nodes, timeout_s=0.2) as client:
        for _ in range(100):
            with pytest.raises(UnavailableError):
                await client.table("t").get("k")
        assert 10 <= client.hedges <= 21


@on_virtual_time
async def test_a_slow_write_is_waited_for() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: None)
    async with client_of(nodes) as client:
        put = asyncio.ensure_future(client.table("t").put("k", b"v", context=b""))
        await asyncio.sleep(1.0)
        assert len(nodes.asked) == 1
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put


@on_virtual_time
async def test_when_no_node_can_be_asked_a_request_waits_and_goes_on_when_one_is_back() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: PutIs(b"next", 1))
    async with client_of(nodes) as client:
        nodes.away = set(NODES)
        put = asyncio.ensure_future(client.table("t").put("k", b"v", context=b""))
        await asyncio.sleep(0.5)
        assert not put.done()
        nodes.away = set(NODES[1:])
        assert await put == b"next"


@on_virtual_time
async def test_at_the_deadline_it_says_that_nothing_was_written_and_why() -> None:
    for failure, kind in (
        (PeerUnreachableError("no connection"), UnavailableError),
        (RefusedError("overloaded", "too much to do"), OverloadedError),
    ):
        nodes = Nodes(a_map(), lambda _node, _request, failure=failure: failure)  # type: ignore[misc]
        async with client_of(nodes, timeout_s=0.5) as client:
            began = asyncio.get_running_loop().time()
            with pytest.raises(kind, match=r"no connection; nothing was written|too much to do") as raised:
                await client.table("t").put("k", b"v", context=b"")
            assert type(raised.value) is kind
            assert asyncio.get_running_loop().time() - began <= 0.5
            with pytest.raises(kind, match=r"no connection$|too much to do$"):  # who reads needs not be told
                await client.table("t").get("k", timeout_s=0.1)


@on_virtual_time
async def test_a_node_may_take_less_time_than_the_client_waits() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: PutIs(b"", 1))
    async with client_of(nodes) as client:
        await client.table("t").put("k", b"v", context=b"", timeout_s=1.0)
        ((_, request),) = nodes.asked
        assert isinstance(request, ClientPut)
        assert request.timeout_ms == 900


@on_virtual_time
async def test_a_newer_epoch_makes_it_fetch_the_ring_and_who_is_gone_is_let_go_later() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: value(epoch=nodes.map.epoch))
    async with client_of(nodes) as client:
        nodes.map = a_map(4, epoch=7)
        await client.table("t").get("k")
        await turns()
        assert client.epoch == 7
        assert set(nodes.peers) == set(NODES)  # it may still be answering
        await asyncio.sleep(11.0)
        assert set(nodes.peers) == set(NODES[:4])


@on_virtual_time
async def test_when_all_it_knows_are_gone_the_seeds_are_asked() -> None:
    nodes = Nodes(a_map(2), lambda _node, _request: value())
    async with client_of(nodes, seeds=("a:7700", "e:7700")) as client:
        assert client.epoch == 1
        nodes.map = a_map(5, epoch=9)
        nodes.away = set(NODES[:2])
        assert (await client.table("t").get("k")).value == b"milk"
        assert client.epoch == 9


@on_virtual_time
async def test_nobody_answers_to_begin_with() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: None)
    nodes.away = set(NODES)
    with pytest.raises(UnavailableError, match=r"no node of a:7700, b:7700 has told where its cluster is: .* is away"):
        async with client_of(nodes, seeds=("a:7700", "b:7700"), timeout_s=0.5):
            pass


@on_virtual_time
async def test_a_map_of_another_cluster_is_not_taken() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: value(epoch=nodes.map.epoch))
    async with client_of(nodes) as client:
        nodes.map = msgspec.structs.replace(a_map(epoch=5), cluster_id=ClusterId("d" * 16))
        assert (await client.table("t").get("k")).value == b"milk"
        await turns()
        assert client.epoch == 1


@on_virtual_time
async def test_an_answer_to_another_question_is_damage() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: KeysAre((), None, 1))
    async with client_of(nodes) as client:
        with pytest.raises(CorruptionError, match="a KeysAre where a ValuesAre was due"):
            await client.table("t").get("k")


# Values that become one


def several(*data: bytes) -> ValuesAre:
    return ValuesAre(tuple(ValueIs(one, number, 1) for number, one in enumerate(data)), b"seen", 1)


def joined(values: list[bytes]) -> bytes:
    return b" and ".join(sorted(values))


@on_virtual_time
async def test_without_a_merge_function_several_values_are_told_apart_and_a_put_replaces_what_it_has_seen() -> None:
    nodes = Nodes(
        a_map(), lambda _node, request: PutIs(b"", 1) if isinstance(request, ClientPut) else several(b"a", b"b")
    )
    async with client_of(nodes) as client:
        table = client.table("t")
        found = await table.get("k")
        assert found.all == [b"a", b"b"]
        with pytest.raises(SiblingsError, match="the key has 2 values"):
            _ = found.value
        nodes.asked.clear()
        await table.put("k", b"c")
        await table.put("k", b"c", context=found.context)
        assert [(r.value, r.context) for r in puts(nodes)] == [(b"c", b""), (b"c", b"seen")]
        with pytest.raises(SiblingsError):
            await table.update("k", lambda value: value)


def puts(nodes: Nodes) -> list[ClientPut]:
    return [request for _, request in nodes.asked if isinstance(request, ClientPut)]


@on_virtual_time
async def test_with_a_merge_function_siblings_become_one_on_get_and_put() -> None:
    there = [b"b", b"a"]

    def says(_node: NodeId, request: Request) -> Any:
        return PutIs(b"", 1) if isinstance(request, ClientPut) else several(*there)

    nodes = Nodes(a_map(), says)
    async with client_of(nodes) as client:
        table = client.table("t", merge=joined)
        assert (await table.get("k")).value == b"a and b"
        await table.put("k", b"c")
        assert await table.update("k", lambda value: b"<" + (value or b"") + b">") == b"<a and b>"
        await table.put("k", b"d", context=b"exactly this")
        await table.update("k", lambda _value: None)
        there.clear()
        await table.put("k", b"e")
        assert await table.update("k", lambda _value: None) is None  # nothing there, so nothing to delete
        assert [(r.value, r.context) for r in puts(nodes)] == [
            (b"a and b and c", b"seen"),
            (b"<a and b>", b"seen"),
            (b"d", b"exactly this"),
            (None, b"seen"),
            (b"e", b"seen"),
        ]


@on_virtual_time
async def test_what_a_merge_function_raises_or_returns_by_mistake_is_not_written() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: several(b"a", b"b"))
    async with client_of(nodes) as client:
        with pytest.raises(TypeError, match="a merge function returns bytes, and this one returned list"):
            await client.table("t", merge=lambda values: values).put("k", b"c")  # type: ignore[arg-type, return-value]
        with pytest.raises(ZeroDivisionError):
            await client.table("t", merge=lambda _values: bytes(1 // 0)).update("k", lambda value: value)
        assert puts(nodes) == []


def test_a_client_is_not_made_with_what_cannot_be() -> None:
    wrong: list[dict[str, Any]] = [
        {"seeds": "nowhere"},
        {"seeds": []},
        {"timeout_s": 0},
        {"timeout_s": 61},
        {"consistency": "MOST"},
    ]
    for options in wrong:
        with pytest.raises(RequestError):
            Client(**options)


# Whom to ask first


def test_the_node_that_answers_soonest_is_asked_first_and_shares_with_its_equals() -> None:
    a, b, c = NODES[:3]
    near = Nearness()
    for node, seconds in (a, 0.010), (b, 0.001), (c, 0.0011):
        near.sent(node)
        near.answered(node, seconds)
    assert near.order([a, b, c], 0.0) == [b, c, a]
    near.sent(b)
    assert near.order([a, b, c], 0.0) == [c, b, a]


def test_a_node_that_fails_comes_last_for_a_while_and_is_looked_at_again() -> None:
    a, b, c = NODES[:3]
    near = Nearness()
    for node in a, b, c:
        near.sent(node)
        near.answered(node, 0.001)
    near.sent(a)
    near.failed(a, 10.0)
    assert near.order([a, b, c], 11.9)[-1] == a
    firsts = [near.order([a, b, c], 12.1)[0] for _ in range(200)]
    assert set(firsts) == {a, b, c}
    assert firsts.count(a) >= 190
