"""What a node could not read is refused before it is sent, by name: argument, what was given, what is wanted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from client.by_hand import Nodes, a_map, client_of, on_virtual_time
from merganser.client import Client
from merganser.client.arguments import check_request
from merganser.model.client_messages import ClientGet, ClientPut
from merganser.model.consistency import needed_to_read, needed_to_write, parse_levels
from merganser.model.crdt import Operation
from merganser.model.errors import RequestError


def put(**changes: Any) -> ClientPut:
    usual: dict[str, Any] = {
        "table": "t",
        "key": b"k",
        "value": b"v",
        "context": b"",
        "level": "QUORUM",
        "timeout_ms": 1,
    }
    return ClientPut(**{**usual, **changes})


def test_what_is_right_is_let_through() -> None:
    check_request(put(ttl_s=5, metadata=(("a", "b"),)))
    check_request(ClientGet("t", b"k", "QUORUM", 1))


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"context": "text"}, "context"),
        ({"ttl_s": 1.5}, "ttl_s"),
        ({"ttl_s": True}, "ttl_s"),
        ({"ttl_s": "5"}, "ttl_s"),
        ({"only_if": 5}, "only_if"),
        ({"metadata": (("a", 5),)}, "metadata"),
        ({"content_type": 5}, "content_type"),
        ({"ttl_s": 2**70}, "ttl_s"),
    ],
)
def test_what_is_of_a_wrong_type_is_refused_by_name(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(RequestError, match=rf"^{name}: .*, of .*; nothing was sent"):
        check_request(put(**wrong))


CLIENTS: list[tuple[dict[str, Any], str]] = [
    ({"name": 5}, "name must be text, not int: 5"),
    ({"timeout_s": "5"}, "timeout_s must be a number of seconds, not str: '5'"),
    ({"timeout_s": True}, "timeout_s must be a number of seconds, not bool: True"),
    ({"merge": 5}, "merge must be a function, not int: 5"),
    ({"seeds": [5]}, r"seeds must be a list of texts, not list: \[5\]"),
    ({"seeds": 5}, "seeds must be a list of texts, not int: 5"),
    ({"consistency": 2}, "consistency must be text, not int: 2"),
    ({"tls": True}, "tls must be an ssl.SSLContext, not bool: True"),
]


@pytest.mark.parametrize(("wrong", "told"), CLIENTS)
def test_a_client_is_not_made_of_a_wrong_type(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(TypeError, match=told) as raised:
        Client(**wrong)
    assert isinstance(raised.value, RequestError)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"seeds": "127.0.0.1:99999"}, "seed '127.0.0.1:99999' has port 99999, and the highest there is is 65535"),
        ({"seeds": "127.0.0.1:" + "9" * 5000}, "has port 99999999999999999999, and"),
        ({"seeds": "http://127.0.0.1:7700"}, "seed 'http://127.0.0.1:7700' is a URL, .*: write host:port alone"),
        ({"seeds": "127.0.0.1"}, "seed '127.0.0.1' is not an address: write host:port"),
        ({"consistency": "MOST"}, "consistency 'MOST': choose one of ONE"),
        ({"coordinated": "all"}, "coordinated is one of replica, any, not 'all'"),
    ],
)
def test_a_client_is_not_made_of_what_cannot_be(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        Client(**wrong)


CALLS: list[tuple[Callable[[Client, Any], Awaitable[Any]], Any, str]] = [
    (lambda client, wrong: client.table("t").put("k", "v", metadata=wrong), 5, "metadata must be a dictionary of text"),
    (lambda client, wrong: client.table("t").put("k", "v", metadata=wrong), {"a": 5}, "metadata must be .*{'a': 5}"),
    (lambda client, wrong: client.table("t").put("k", "v", tags=wrong), {"a": 5.0}, "tags must be pairs .*{'a': 5.0}"),
    (lambda client, wrong: client.table("t").put("k", "v", tags=wrong), [("a", 5.0)], "tag a must be a whole number"),
    (lambda client, wrong: client.table("t").put("k", "v", tags=wrong), [(5, 5)], "the name of a tag must be text"),
    (lambda client, wrong: client.table("t").put("k", "v", tags=wrong), "age", "tags must be pairs"),
    (lambda client, wrong: client.table("t").put("k", "v", context=wrong), "", "context: Expected `bytes`, got `str`"),
    (lambda client, wrong: client.table("t").put("k", "v", only_if=wrong), 0, "only_if: Expected `str`, got `int`"),
    (lambda client, wrong: client.table("t").put("k", wrong), 5, "value must be bytes or text, not int: 5"),
    (lambda client, wrong: client.table("t").put(wrong, "v"), "\ud800", "key must be bytes, or text that has an UTF-8"),
    (lambda client, wrong: client.table(wrong).put("k", "v"), "\ud800", "table: 'utf-8' codec can't encode"),
    (lambda client, wrong: client.table("t").put(wrong, "v"), 5, "key must be bytes or text, not int: 5"),
    (lambda client, wrong: client.table(wrong).put("k", "v"), 5, "name must be text, not int: 5"),
    (lambda client, wrong: client.table("t", merge=wrong).put("k", "v"), 5, "merge must be a function"),
    (lambda client, wrong: client.table("t").get("k", consistency=wrong), 2, "consistency must be text, not int: 2"),
    (lambda client, wrong: client.table("t").get("k", timeout_s=wrong), "5", "timeout_s must be a number of seconds"),
    (lambda client, wrong: client.table("t").update("k", wrong), b"v", "change must be a function, not bytes: b'v'"),
    (lambda client, wrong: anext(client.table("t").find("age", low=wrong)), 1.5, "low must be a whole number, bytes"),
    (lambda client, wrong: anext(client.table("t").find(wrong)), 5, "tag: Expected `str`, got `int`, of 5"),
    (
        lambda client, wrong: client.crdt("t", "k").counter().increment(wrong),
        1.5,
        "what increment is given must be a w",
    ),
    (lambda client, wrong: client.crdt("t", "k").set().add(wrong), 1.5, "value must be bytes or text, not float: 1.5"),
    (lambda client, wrong: client.crdt("t", "k").update(wrong), "add", "an operation must be of type Operation, not"),
    (
        lambda client, wrong: client.crdt("t", "k").update(Operation("set", "add", wrong)),
        1.5,
        r"an operation: Expected `int \| bytes \| null`, got `float`",
    ),
    (lambda client, wrong: client.crdt(wrong, "k").reset(), 5, "table must be text"),
    (lambda client, wrong: client.create_table("t", n=wrong), "3", "n must be a whole number, not str: '3'"),
    (lambda client, wrong: client.create_table("t", replicas=wrong), 5, "replicas must be a dictionary of whole"),
    (lambda client, wrong: client.create_table("t", data_centers=wrong), "eu", "data_centers must be a list of texts"),
    (lambda client, wrong: client.create_table("t", conflicts=wrong), "none", "conflicts: Invalid enum value 'none'"),
]


@pytest.mark.parametrize(("call", "wrong", "told"), CALLS)
def test_an_argument_of_a_wrong_type_is_named_and_nothing_is_sent(
    call: Callable[[Client, Any], Awaitable[Any]], wrong: Any, told: str
) -> None:
    nodes = Nodes(a_map(), lambda _node, _request: None)

    async def script() -> None:
        async with client_of(nodes) as client:
            with pytest.raises(TypeError, match=f"^{told}.*; nothing was sent$") as raised:
                await call(client, wrong)
            assert isinstance(raised.value, RequestError)

    on_virtual_time(script)()
    assert nodes.asked == []


NUMBERS: list[Callable[[Client, int], Awaitable[Any]]] = [
    lambda client, number: client.table("t").put("k", "v", context=b"", tags=[("age", number)]),
    lambda client, number: anext(client.table("t").find("age", number)),
    lambda client, number: anext(client.table("t").find("age", low=number)),
    lambda client, number: client.crdt("t", "k").counter().increment(number),
    lambda client, number: client.crdt("t", "k").maximum().raise_to(number),
    lambda client, number: client.table("t").get("k", timeout_s=number),
]


@pytest.mark.parametrize("call", NUMBERS)
@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**400, 10**5000], ids=lambda number: number.bit_length())
def test_a_number_of_more_than_64_bits_is_refused_before_it_is_sent(
    call: Callable[[Client, int], Awaitable[Any]], number: int
) -> None:
    nodes = Nodes(a_map(), lambda _node, _request: None)

    async def script() -> None:
        async with client_of(nodes) as client:
            with pytest.raises(RequestError, match=r"int of 16,610 bits" if number == 10**5000 else str(number)[:40]):
                await call(client, number)

    on_virtual_time(script)()
    assert nodes.asked == []


@pytest.mark.parametrize(
    ("text", "told"), [("pw=4", "pw=4"), ("w=4", "w=4"), ("w=4,pw=1", "w=4"), ("pr=4", "pr=4"), ("r=4", "r=4")]
)
def test_a_number_that_there_cannot_be_is_called_as_it_was(text: str, told: str) -> None:
    levels = parse_levels(text)
    with pytest.raises(ValueError, match=f"^{told} and the table has 3 replicas"):
        needed_to_write(levels.write, 3) if levels.write is not None else needed_to_read(levels.read or "", 3)  # type: ignore[arg-type]
