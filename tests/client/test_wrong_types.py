"""What a node could not read is refused before it is sent: a frame like that ends the connection for everybody."""

from __future__ import annotations

from typing import Any

import pytest

from merganser.client import Client
from merganser.client.calls import check_request
from merganser.model.client_messages import ClientGet, ClientPut
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
    with pytest.raises(RequestError, match=f"^{name} is of a wrong type, nothing was sent"):
        check_request(put(**wrong))


def test_the_name_of_a_client_is_text() -> None:
    name: Any = 5
    with pytest.raises(RequestError, match="the name of a client is text"):
        Client(name=name)
