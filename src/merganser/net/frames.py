"""Frames between peers: 4 bytes of big-endian length, then that many bytes of msgpack; no I/O here.

A connection carries requests one way only::

    caller   Hello ->                Call(1) Call(2) ->
    callee            <- Hello                           <- Answer(2) Answer(1)
                      <- Rejected, then it closes

A deadline travels as the time that remains, never as a time of day: peers' clocks need not agree.

Invariants: no more than ``frame_bytes_max`` bytes of a frame are ever kept, its length is judged before
its payload is; after `CorruptionError` the place in the stream is lost and the connection must go. Of a
payload that is no frame whoever reads the stream may make something (``rescue``), and then goes on behind it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgspec

from merganser.model.errors import CorruptionError
from merganser.net.frame_bodies import Frame, Sent

FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Far above the largest message (a page of rows, a cluster map); a longer length is garbage or an attack."""

HELLO_BYTES_MAX = 4096
"""What a stranger may make us keep before it has said who it is."""

_LENGTH = struct.Struct(">I")
LENGTH_BYTES = _LENGTH.size
_HTTP = int.from_bytes(b"HTTP", "big")
"""The length that an answer of an HTTP server seems to have."""

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Sent] = msgspec.msgpack.Decoder(Sent)


class FrameTooLargeError(ValueError):
    """The message does not fit into one frame; it was not sent."""


def encode(frame: Frame, *, frame_bytes_max: int = FRAME_BYTES_MAX) -> bytes:
    """Return ``frame`` with its length in front.

    Raises:
        FrameTooLargeError: the payload is longer than ``frame_bytes_max``.
    """
    payload = _encoder.encode(frame)
    if len(payload) > frame_bytes_max:
        raise FrameTooLargeError(
            f"a message of {len(payload)} bytes is over the {frame_bytes_max} a frame may have: ask for smaller pages"
        )
    return _LENGTH.pack(len(payload)) + payload


class FrameDecoder:
    """Cuts a stream of bytes, in pieces of any size, into frames."""

    __slots__ = ("_kept", "_needed", "_rescue", "frame_bytes_max")

    def __init__(
        self, *, frame_bytes_max: int = FRAME_BYTES_MAX, rescue: Callable[[memoryview], Frame | None] | None = None
    ) -> None:
        """Start at the beginning of a frame.

        Args:
            frame_bytes_max: as long as a frame may be.
            rescue: returns what to take a payload for that is no frame; None: the stream is lost there.
        """
        self.frame_bytes_max = frame_bytes_max
        self._rescue = rescue
        self._kept = bytearray()
        self._needed = 0
        """Bytes that `_kept` must have before looking at it again is worth while."""

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes, in order.

        Whole frames are decoded where they lie; only an unfinished one at the end is copied, once.

        Raises:
            CorruptionError: a frame is too long or is not one of ours; the stream is lost.
        """
        if not self._kept:
            frames, consumed = self._cut(data)
            self._kept += data[consumed:]
            return frames
        self._kept += data
        if len(self._kept) < self._needed:
            return []
        frames, consumed = self._cut(self._kept)
        del self._kept[:consumed]
        return frames

    def _cut(self, data: bytes | bytearray) -> tuple[list[Frame], int]:
        frames: list[Frame] = []
        start, end = 0, len(data)
        with memoryview(data) as view:
            while end - start >= LENGTH_BYTES:
                payload_start = start + LENGTH_BYTES
                (payload_bytes,) = _LENGTH.unpack_from(view, start)
                if payload_bytes > self.frame_bytes_max:
                    raise self._too_long(payload_bytes)
                payload_end = payload_start + payload_bytes
                if payload_end > end:
                    self._needed = payload_end - start
                    return frames, start
                frames.append(self._decode(view[payload_start:payload_end]))
                start = payload_end
        self._needed = LENGTH_BYTES
        return frames, start

    def _too_long(self, payload_bytes: int) -> CorruptionError:
        if payload_bytes == _HTTP:
            return CorruptionError("it speaks HTTP: name the port of its peers, not one of its HTTP doors")
        return CorruptionError(
            f"a peer announced a frame of {payload_bytes} bytes, {self.frame_bytes_max} are allowed: "
            "it speaks another protocol, or its bytes are damaged"
        )

    def _decode(self, payload: memoryview) -> Frame:
        try:
            return _decoder.decode(payload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # ValueError: text that is not UTF-8
            rescued = None if self._rescue is None else self._rescue(payload)
            if rescued is not None:
                return rescued
            raise CorruptionError(f"a peer sent {len(payload)} bytes that are not a frame: {error}") from error
