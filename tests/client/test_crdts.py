"""What native clients make of the values that nodes tell: nodes made by hand, on virtual time."""

from __future__ import annotations

import pytest

from client.by_hand import Nodes, a_map, client_of, on_virtual_time
from merganser.client import SiblingsError
from merganser.model.client_messages import CrdtIs
from merganser.model.crdt import Field, Shown

HITS, ITEMS = Shown("counter", 3), Shown("set", (b"milk", b"tea"))


@on_virtual_time
async def test_values_of_two_types_are_told_apart() -> None:
    nodes = Nodes(a_map(), lambda _node, _request: CrdtIs((HITS, ITEMS), b"seen", 1))
    async with client_of(nodes) as client:
        home = client.crdt("t", "k")
        with pytest.raises(SiblingsError, match=r"several types: ask for one of them \(counter, set\)"):
            await home.get()
        assert (await home.fetch()).values == (HITS, ITEMS)
        assert await home.counter().fetch() == (3, b"seen")
        assert await home.set().get() == {b"milk", b"tea"}
        assert await home.map().get() == {}


@on_virtual_time
async def test_fields_that_are_there_twice_are_named_by_their_types() -> None:
    inner = Shown("map", (Field(b"x", HITS), Field(b"x", ITEMS), Field(b"y", Shown("flag", False))))
    nodes = Nodes(a_map(), lambda _node, _request: CrdtIs((Shown("map", (Field(b"m", inner),)),), b"", 1))
    async with client_of(nodes) as client:
        home = client.crdt("t", "k")
        assert await home.get() == {b"m": {b"x (counter)": 3, b"x (set)": {b"milk", b"tea"}, b"y": False}}
        assert await home.map("m").counter("x").get() == 3
        assert await home.set("m", "x").get() == {b"milk", b"tea"}
