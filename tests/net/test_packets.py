"""Packets as bytes: what was sent is read, whatever else comes is ignored without an exception."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.model.gossip import (
    INCARNATION_MAX,
    PACKET_BYTES_MAX,
    Ack,
    Body,
    Claim,
    Nack,
    Packet,
    Ping,
    PingRequest,
    State,
)
from merganser.model.ids import ClusterId, NodeId
from merganser.net.packets import decode, encode

OURS = ClusterId("0123456789abcdef")

node_ids = st.integers(0, 2**64 - 1).map(lambda number: NodeId(f"{number:016x}"))
numbers = st.integers(0, 2**32 - 1)
bodies: st.SearchStrategy[Body] = st.one_of(
    st.builds(Ping, numbers),
    st.builds(Ack, numbers),
    st.builds(Nack, numbers),
    st.builds(PingRequest, numbers, node_ids),
)
claims = st.builds(
    Claim, node_ids, st.sampled_from(State), st.integers(0, INCARNATION_MAX), st.lists(node_ids, max_size=4).map(tuple)
)
packets = st.builds(Packet, node_ids, st.integers(0, INCARNATION_MAX), bodies, st.lists(claims, max_size=8).map(tuple))
EXAMPLE = Packet(NodeId("a" * 16), 3, Ping(7), (Claim(NodeId("b" * 16), State.SUSPECT, 1, (NodeId("a" * 16),)),))


@given(packets)
def test_what_was_sent_is_what_is_read(packet: Packet) -> None:
    assert decode(OURS, encode(OURS, packet)) == packet


@given(st.binary(max_size=200))
def test_garbage_is_nothing(data: bytes) -> None:
    assert decode(OURS, data) is None


@given(packets, st.data())
def test_a_damaged_packet_is_nothing_or_another_packet_but_never_an_exception(
    packet: Packet, data: st.DataObject
) -> None:
    sent = bytearray(encode(OURS, packet))
    for _ in range(data.draw(st.integers(1, 3))):
        sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    found = decode(OURS, bytes(sent))
    assert found is None or isinstance(found, Packet)


@given(packets, st.data())
def test_a_packet_cut_short_is_nothing(packet: Packet, data: st.DataObject) -> None:
    sent = encode(OURS, packet)
    assert decode(OURS, sent[: data.draw(st.integers(0, len(sent) - 1))]) is None


def test_a_packet_of_another_cluster_is_nothing() -> None:
    assert decode(ClusterId("f" * 16), encode(OURS, EXAMPLE)) is None


def test_a_packet_of_another_release_is_nothing() -> None:
    envelope = msgspec.msgpack.decode(encode(OURS, EXAMPLE))
    assert envelope[0] == 1
    envelope[0] = 2
    assert decode(OURS, msgspec.msgpack.encode(envelope)) is None


@pytest.mark.parametrize("incarnation", [-1, INCARNATION_MAX + 1])
def test_an_incarnation_that_no_member_reaches_is_nothing(incarnation: int) -> None:
    assert decode(OURS, encode(OURS, msgspec.structs.replace(EXAMPLE, incarnation=incarnation))) is None


def test_what_is_longer_than_any_packet_is_not_looked_at() -> None:
    many = Packet(NodeId("a" * 16), 0, Ping(1), EXAMPLE.claims * 60)
    sent = encode(OURS, many)
    assert len(sent) > PACKET_BYTES_MAX
    assert decode(OURS, sent) is None


def test_deep_nesting_is_nothing() -> None:
    assert decode(OURS, b"\x91" * PACKET_BYTES_MAX) is None
