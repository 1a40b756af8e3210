"""What members say to one another about who is alive: packets of `core.membership`, small enough for a datagram."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec

from merganser.model.ids import NodeId

PACKET_BYTES_MAX = 1200
"""Passes any network unfragmented: IPv6 promises 1,280 bytes, of which the headers of IP and UDP take 48."""

INCARNATION_MAX = 2**62
"""A number above it is garbage: a node that refuted a million claims a second would reach it in 100,000 years."""

Incarnation = Annotated[int, msgspec.Meta(ge=0, le=INCARNATION_MAX)]
"""How often a member has refuted what was said of it, in its present life. It alone raises it."""


class State(enum.IntEnum):
    """What is believed of a member. Of two claims of one incarnation the greater state is believed."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2


class Claim(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """That ``node``, in that incarnation, is in that state."""

    node: NodeId
    state: State
    incarnation: Incarnation
    accusers: tuple[NodeId, ...] = ()
    """Of a SUSPECT: who found it silent, in ascending order, no more than `core.suspicion.ACCUSERS_MAX`."""


class Ping(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Answered by `Ack` of the same number."""

    number: int


class PingRequest(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Ping ``target`` for me. Answered by `Ack` if it answers, by `Nack` if it does not."""

    number: int
    target: NodeId


class Ack(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The member that was asked for is alive."""

    number: int


class Nack(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """I am here and heard you, but the member you asked for has not answered me."""

    number: int


Body = Ping | PingRequest | Ack | Nack


class Packet(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message, and the news it carries."""

    sender: NodeId
    incarnation: Incarnation
    """Of the sender, who thereby claims to be alive in it."""
    body: Body
    claims: tuple[Claim, ...] = ()
