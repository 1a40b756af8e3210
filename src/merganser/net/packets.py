"""Packets of the membership protocol as bytes: msgpack, in an envelope that names the cluster.

The tag of the envelope is the version of the format: a packet of another release does not decode, and is
ignored, as is one of another cluster and one that is damaged.
"""

from __future__ import annotations

import msgspec

from merganser.model.gossip import PACKET_BYTES_MAX, Packet
from merganser.model.ids import ClusterId


class _Envelope(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    cluster: ClusterId
    packet: Packet


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Envelope).decode


def encode(cluster: ClusterId, packet: Packet) -> bytes:
    """Return ``packet`` as it travels within ``cluster``."""
    return _encode(_Envelope(cluster, packet))


def decode(cluster: ClusterId, data: bytes) -> Packet | None:
    """Return the packet in ``data``; None if it is damaged or of another release or cluster. Raises nothing."""
    if len(data) > PACKET_BYTES_MAX:
        return None
    try:
        envelope = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # ValueError: text that is not UTF-8
        return None
    return envelope.packet if envelope.cluster == cluster else None
