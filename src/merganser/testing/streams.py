"""The TCP half of a link: each connection to a node's advertised address is relayed to the node.

    caller --> Relay.front =========== Relay.back --> node behind the link
                   lane "there" carries what the caller sends
                   lane "back" carries what the node answers

The caller is known by its greeting (`net.frames.Hello`), the node behind the link by its answer to it.

A cut that is silent holds bytes back instead of dropping them: TCP would send them again, so they arrive
when the link heals. A connection is opened only while both directions are clear, as its handshake needs
both. After `GIVE_UP_S` in a silent cut a connection is reset, as the kernels of both ends would have
done by then (`net.sockets`), which the relay's own kernel keeps from noticing.

Invariant: a lane holds at most `LANE_BYTES_MAX` and one read of the socket; beyond it nothing is read.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Protocol, cast

from merganser.model.errors import CorruptionError
from merganser.net.frame_bodies import Hello
from merganser.net.frames import HELLO_BYTES_MAX, FrameDecoder
from merganser.net.sockets import split_address
from merganser.testing.conditions import CLEAR, Conditions, Cut, Departures

LANE_BYTES_MAX = 256 * 1024
GIVE_UP_S = 11.0
"""What keepalive and user timeout of `net.sockets` come to."""
CONNECT_TIMEOUT_S = 2.0


class Directory(Protocol):
    """What a relay asks of the links."""

    def number_of(self, node_id: str) -> int | None:
        """Return the number of a node, None if it has not been met."""

    def met(self, node_id: str, number: int) -> None:
        """Take note of who is behind a link."""

    def number_at(self, address: tuple[str, int]) -> int | None:
        """Return the number of the node that sends datagrams from ``address``."""

    def target(self, number: int) -> str | None:
        """Return host:port where a node listens."""

    def conditions(self, sender: int | None, receiver: int | None) -> Conditions:
        """Return what holds now."""


class Lane:
    """Bytes of one connection in one direction."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random) -> None:
        """Hold what comes until there is somewhere to deliver it."""
        self._loop = loop
        self._departures = Departures(rng)
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._queued_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_sink_full = False
        self.conditions = CLEAR
        self.source: asyncio.Transport | None = None
        self.sink: asyncio.Transport | None = None

    def feed(self, data: bytes) -> None:
        """Take what the source sent."""
        self._queue.append((self._departures.due(self._loop.time(), len(data), self.conditions), data))
        self._queued_bytes += len(data)
        self.pump()

    def finish(self) -> None:
        """Close the sink after what came before; held back like everything else."""
        self._queue.append((self._departures.due(self._loop.time(), 0, self.conditions), None))
        self.pump()

    def pause(self, *, is_full: bool) -> None:
        """Hold everything back while the sink takes no more."""
        self._is_sink_full = is_full
        self.pump()

    def pump(self) -> None:
        """Deliver what is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self.sink is not None and not self._is_sink_full and self.conditions.cut is None:
            due, data = self._queue[0]
            if due > self._loop.time():
                self._timer = self._loop.call_at(due, self.pump)
                break
            self._queue.popleft()
            self._deliver(self.sink, data)
        self._read_if_room()

    def close(self) -> None:
        """Deliver nothing more."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _deliver(self, sink: asyncio.Transport, data: bytes | None) -> None:
        if data is None:
            sink.close()
        else:
            self._queued_bytes -= len(data)
            if not sink.is_closing():
                sink.write(data)

    def _read_if_room(self) -> None:
        if self.source is None or self.source.is_closing():
            return
        if self._queued_bytes > LANE_BYTES_MAX:
            self.source.pause_reading()
        elif not self.source.is_reading():
            self.source.resume_reading()


class Relay:
    """One connection through a link."""

    def __init__(self, directory: Directory, number: int, rng: random.Random) -> None:
        """Relay to node ``number``."""
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._number = number
        self._caller_id: str | None = None
        self._hello = FrameDecoder(frame_bytes_max=HELLO_BYTES_MAX)
        self._answer: FrameDecoder | None = FrameDecoder(frame_bytes_max=HELLO_BYTES_MAX)
        self._is_introduced = False
        self._connecting: asyncio.Task[None] | None = None
        self._giving_up: asyncio.TimerHandle | None = self._loop.call_later(GIVE_UP_S, self.abort)
        self.there = Lane(self._loop, rng)
        self.back = Lane(self._loop, rng)
        self.front = _End(self, feeds=self.there, fed_by=self.back)
        self._behind = _End(self, feeds=self.back, fed_by=self.there)
        self.over: asyncio.Future[None] = self._loop.create_future()
        """Done when both ends are closed."""

    def refresh(self) -> None:
        """Take the conditions as they are now."""
        caller = None if self._caller_id is None else self._directory.number_of(self._caller_id)  # met by now?
        self.there.conditions = self._directory.conditions(caller, self._number)
        self.back.conditions = self._directory.conditions(self._number, caller)
        cuts = {self.there.conditions.cut, self.back.conditions.cut}
        if Cut.RESET in cuts:
            self.abort()
            return
        if Cut.SILENT not in cuts:
            self._stop_giving_up()
            self._connect_if_introduced()
        elif self._giving_up is None:
            self._giving_up = self._loop.call_later(GIVE_UP_S, self.abort)
        self.there.pump()
        self.back.pump()

    def abort(self) -> None:
        """Reset both ends."""
        self._stop_giving_up()
        if self._connecting is not None:
            self._connecting.cancel()
        for lane in (self.there, self.back):
            lane.close()
            if lane.source is not None:
                lane.source.abort()
        self._end_if_closed()

    # What the ends call.

    def took(self, end: _End, data: bytes) -> None:
        """Look who is speaking, and pass ``data`` on."""
        if end is self.front and not self._is_introduced:
            self._look_for_caller(data)
        elif end is self._behind and self._answer is not None:
            self._look_for_node(data)
        end.feeds.feed(data)

    def lost(self, end: _End) -> None:
        """Let the other end know, once what was sent before has arrived."""
        end.feeds.source = None
        if end.fed_by.source is None:
            self.abort()  # nobody is left, or the connection behind was never made
        else:
            end.feeds.finish()
        self._end_if_closed()

    # Steps.

    def _look_for_caller(self, data: bytes) -> None:
        first = _first_frame(self._hello, data)
        if first is None:
            return
        self._is_introduced = True
        if isinstance(first, Hello):
            self._caller_id = first.node_id
        self.refresh()

    def _look_for_node(self, data: bytes) -> None:
        assert self._answer is not None
        first = _first_frame(self._answer, data)
        if first is None:
            return
        self._answer = None
        if isinstance(first, Hello):
            self._directory.met(first.node_id, self._number)

    def _connect_if_introduced(self) -> None:
        if self._is_introduced and self._connecting is None:
            self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        target = self._directory.target(self._number)
        try:
            if target is None:
                raise ConnectionRefusedError
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._loop.create_connection(lambda: self._behind, *split_address(target))
        except (OSError, TimeoutError):  # nobody listens there: the caller is told by a reset
            self._connecting = None
            self.abort()

    def _stop_giving_up(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _end_if_closed(self) -> None:
        if self.there.source is None and self.back.source is None and not self.over.done():
            self._stop_giving_up()
            self.over.set_result(None)


class _End(asyncio.Protocol):
    """One socket of a relay."""

    def __init__(self, relay: Relay, *, feeds: Lane, fed_by: Lane) -> None:
        self._relay = relay
        self.feeds = feeds
        self.fed_by = fed_by

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self.feeds.source = self.fed_by.sink = transport
        self.fed_by.pump()

    def data_received(self, data: bytes) -> None:
        self._relay.took(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._relay.lost(self)

    def pause_writing(self) -> None:
        self.fed_by.pause(is_full=True)

    def resume_writing(self) -> None:
        self.fed_by.pause(is_full=False)


def _first_frame(decoder: FrameDecoder, data: bytes) -> object | None:
    """Return the first frame once it is whole; anything that is no frame is returned as it came."""
    try:
        frames = decoder.feed(data)
    except CorruptionError:
        return data
    return frames[0] if frames else None
