"""Outgoing requests to one peer: a connection (`Connection`) and what keeps it up (`Link`).

States of a link::

    idle --open()--> first attempt --greeted--> up --lost--> waiting --backoff over--> attempt
                          |                     ^               ^                      |  |
                          +----- failed --------|---------------+------- failed -------+  |
                                                +----------------------- greeted ---------+

Requests wait during the first attempt, because nothing is known against the peer yet; in every later
attempt they fail at once, so that a coordinator turns to the next node without losing time. A peer that
opens a connection itself ends the backoff (`Link.is_back`), and requests wait for that attempt too.

A request is in ``_unwritten`` until its frame is handed to the transport, and in ``_pending`` until its
future completes. That decides how it fails: `PeerUnreachableError` while it is in ``_unwritten``, and
then the frame is never written, `PeerLostError` afterwards.

Invariants: every id in ``_unwritten`` is in ``_pending``; every future completes at the latest one
`deadlines.TICK_S` after its timeout; an id is used once, so a late answer matches nothing.
"""

from __future__ import annotations

import asyncio
import random as randomness
import ssl
from typing import cast

from merganser.model.errors import (
    ConfigurationError,
    CorruptionError,
    PeerBusyError,
    PeerLostError,
    PeerTooOldError,
    PeerUnreachableError,
)
from merganser.model.ids import NodeId
from merganser.model.messages import Reply, Request, withheld
from merganser.model.refusal import Refused
from merganser.net.deadlines import Deadlines
from merganser.net.frame_bodies import Answer, Call, Frame, Hello, Rejected
from merganser.net.frames import HELLO_BYTES_MAX, FrameDecoder, FrameTooLargeError, encode
from merganser.net.handshake import Identity
from merganser.net.limits import PeerLimits
from merganser.net.sockets import detect_dead_peer, split_address
from merganser.net.transport import failed, refusal

_WRITE_BUFFER_BYTES = 256 * 1024
"""What the transport may hold before it asks us to wait; what it holds counts as sent."""


class Connection(asyncio.Protocol):
    """One outgoing connection, used once: greeting, then requests by id until it is lost."""

    def __init__(self, identity: Identity, limits: PeerLimits, *, address: str, expected: NodeId | None) -> None:
        """Prepare a connection to ``address``; requests are taken at once and written after the greeting.

        Args:
            identity: what to say first.
            limits: bounds.
            address: for messages.
            expected: who must answer there; None takes anybody.
        """
        self._loop = asyncio.get_running_loop()
        self._identity = identity
        self._limits = limits
        self._expected = expected
        self._name = f"node {expected} at {address}" if expected else address
        self._decoder = FrameDecoder(frame_bytes_max=HELLO_BYTES_MAX)
        self._deadlines = Deadlines(self._loop, self._expire)
        self._transport: asyncio.Transport | None = None
        self._last_id = 0
        self._pending: dict[int, tuple[asyncio.Future[Reply], set[int]]] = {}
        self._unwritten: dict[int, bytes] = {}
        self._unwritten_bytes = 0
        self._is_paused = False
        self._is_flush_due = False
        self._closed_because: str | None = None
        self._withheld: frozenset[type[Request]] = frozenset()
        self.is_ready = False
        """Greeted and not lost."""
        self.version: int | None = None
        """What both ends speak here, once greeted."""
        self.settled: asyncio.Future[None] = self._loop.create_future()
        """Done once the greeting is over, well or not."""
        self.lost: asyncio.Future[str] = self._loop.create_future()
        """Why the connection is of no more use."""

    def request(self, body: Request, timeout_s: float) -> asyncio.Future[Reply]:
        """Send ``body`` with this turn's other requests; fails as `transport.Transport.request` says."""
        future: asyncio.Future[Reply] = self._loop.create_future()
        objection = self._objection(timeout_s)
        if objection is not None:
            return failed(future, objection)
        if self._withheld and type(body) in self._withheld:
            return failed(future, PeerTooOldError(self._too_old(body)))
        self._last_id += 1
        request_id = self._last_id
        call = Call(request_id, max(1, int(timeout_s * 1000)), body)
        try:
            frame = encode(call, frame_bytes_max=self._limits.frame_bytes_max)
        except FrameTooLargeError as error:
            return failed(future, PeerUnreachableError(str(error)))
        self._pending[request_id] = future, self._deadlines.add(request_id, timeout_s)
        self._unwritten[request_id] = frame
        self._unwritten_bytes += len(frame)
        self._flush_soon()
        return future

    def close(self, reason: str) -> None:
        """Fail what is pending and let go of the socket; ``reason`` goes into the errors."""
        if self._closed_because is not None:
            return
        self._closed_because = reason
        self.is_ready = False
        self._deadlines.close()
        for request_id in list(self._pending):
            self._fail(request_id, reason)
        if self._transport is not None:
            self._transport.abort()
        if not self.settled.done():
            self.settled.set_result(None)
        if not self.lost.done():
            self.lost.set_result(reason)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        if self._closed_because is not None:  # given up while the socket was connecting
            transport.abort()
            return
        detect_dead_peer(transport)
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        transport.write(encode(self._identity.hello()))

    def data_received(self, data: bytes) -> None:
        """Complete the requests that ``data`` answers."""
        if self._closed_because is not None:
            return
        try:
            for frame in self._decoder.feed(data):
                if type(frame) is Answer and self.is_ready:
                    self._settle(frame)
                else:
                    self._greeted(frame)
        except CorruptionError as error:
            self.close(f"{self._name}: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is pending."""
        self.close(f"{self._name}: {exc or 'the peer closed the connection'}")

    def pause_writing(self) -> None:
        """Keep frames here until the transport has room."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Write what was kept."""
        self._is_paused = False
        self._flush_soon()

    # Greeting.

    def _greeted(self, frame: Frame) -> None:
        """Take the first frame of the peer.

        Raises:
            CorruptionError: it is not what a peer says first, or it is not the first.
        """
        if isinstance(frame, Rejected):
            self.close(f"{self._name} does not talk to us: {frame.message}")
        elif not isinstance(frame, Hello) or self.is_ready:
            raise CorruptionError(
                f"a {type(frame).__name__} where there is no place for one: run the same release on both"
            )
        elif self._expected is not None and frame.node_id != self._expected:
            self.close(f"{self._name}: node {frame.node_id} answers there, the cluster map has an old address")
        elif objection := self._identity.objection(frame):
            self.close(f"{self._name}: {objection}")
        elif self._closed_because is None:
            self._decoder.frame_bytes_max = self._limits.frame_bytes_max
            self._agree(frame)
            self.is_ready = True
            self.settled.set_result(None)
            self._flush_soon()

    def _agree(self, hello: Hello) -> None:
        """Settle on a version, and give up those requests that wait here and that the peer does not know."""
        self.version = version = self._identity.version_with(hello)
        assert version is not None, "there was no objection"
        self._withheld = withheld(version)
        for request_id, frame in list(self._unwritten.items()) if self._withheld else ():
            (call,) = FrameDecoder(frame_bytes_max=self._limits.frame_bytes_max).feed(frame)
            if isinstance(call, Call) and type(call.body) in self._withheld:
                self._fail(request_id, self._too_old(call.body), kind=PeerTooOldError)

    def _too_old(self, body: Request) -> str:
        return f"{self._name} speaks peer protocol {self.version}, which has no {type(body).__name__}"

    # Requests.

    def _objection(self, timeout_s: float) -> PeerUnreachableError | None:
        if self._closed_because is not None:
            return PeerUnreachableError(self._closed_because)
        if len(self._pending) >= self._limits.requests_in_flight_max:
            return PeerBusyError(f"{self._name}: {len(self._pending)} requests are unanswered, no more are taken")
        if self._unwritten_bytes >= self._limits.unwritten_bytes_max:
            return PeerBusyError(f"{self._name}: {self._unwritten_bytes} bytes wait for the network, no more are taken")
        return None if timeout_s > 0 else PeerUnreachableError(f"{self._name}: no time was left for the request")

    def _flush_soon(self) -> None:
        if self.is_ready and not self._is_paused and not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if not self._unwritten or self._is_paused or not self.is_ready:
            return
        assert self._transport is not None
        frames = b"".join(self._unwritten.values())
        self._unwritten.clear()
        self._unwritten_bytes = 0
        self._transport.write(frames)

    def _settle(self, answer: Answer) -> None:
        entry = self._pending.pop(answer.id, None)
        if entry is None:  # its deadline has passed
            return
        future, bucket = entry
        bucket.discard(answer.id)
        if future.done():  # its owner has cancelled it
            return
        body = answer.body
        if type(body) is Refused:
            failed(future, refusal(body))
        else:
            future.set_result(body)

    def _expire(self, request_id: int) -> None:
        is_sent = request_id not in self._unwritten
        self._fail(request_id, f"{self._name}: " + ("no answer in time" if is_sent else "not sent in time"))

    def _fail(self, request_id: int, reason: str, *, kind: type[PeerUnreachableError] = PeerUnreachableError) -> None:
        future, _ = self._pending.pop(request_id)
        frame = self._unwritten.pop(request_id, None)
        if frame is not None:
            self._unwritten_bytes -= len(frame)
        if not future.done():
            failed(future, PeerLostError(reason) if frame is None else kind(reason))


async def connect(connection: Connection, address: str, *, timeout_s: float, tls: ssl.SSLContext | None) -> None:
    """Return when ``connection`` is ready, or closed with the reason why it is not; raises nothing."""
    loop = asyncio.get_running_loop()
    try:
        host, port = split_address(address)
        async with asyncio.timeout(timeout_s):
            await loop.create_connection(lambda: connection, host, port, ssl=tls)
            await connection.settled
    except TimeoutError:
        connection.close(f"no connection to {address} within {timeout_s:g} s")
    except (OSError, ConfigurationError) as error:
        connection.close(f"no connection to {address}: {error}")
    except asyncio.CancelledError:
        connection.close(f"the connection to {address} was given up")
        raise


class Link:
    """Keeps a connection to one peer, for one class of traffic, from `open` to `close`."""

    def __init__(
        self,
        peer: NodeId,
        address: str,
        identity: Identity,
        *,
        limits: PeerLimits,
        random: randomness.Random,
        tls: ssl.SSLContext | None,
    ) -> None:
        """Name the peer; nothing is opened yet."""
        self.address = address
        self._peer = peer
        self._identity = identity
        self._limits = limits
        self._random = random
        self._tls = tls
        self._connection: Connection | None = None
        self._down_because = "not opened"
        self._task: asyncio.Task[None] | None = None
        self._greeted = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        """Tell whether a request would be written now."""
        return self._connection is not None and self._connection.is_ready

    @property
    def version(self) -> int | None:
        """What both ends speak, None while there is no connection."""
        return self._connection.version if self._connection is not None else None

    @property
    def down_because(self) -> str | None:
        """Why there is no connection, None while there is one, or the first attempt runs."""
        return self._down_because if self._connection is None else None

    @property
    def is_hopeful(self) -> bool:
        """Tell whether a request would be written now, or wait for the first attempt."""
        return self._connection is not None or self._task is None

    def open(self) -> None:
        """Start the first attempt; does nothing the second time."""
        if self._task is None:
            self._first_connection()

    def request(self, body: Request, timeout_s: float) -> asyncio.Future[Reply]:
        """Send ``body``, or fail at once when the peer is known to be away."""
        connection = self._connection
        if connection is None:
            if self._task is not None:
                future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
                return failed(future, PeerUnreachableError(self._down_because))
            connection = self._first_connection()
        return connection.request(body, timeout_s)

    def close(self) -> asyncio.Task[None] | None:
        """Fail what is pending; the returned task, if any, ends when nothing is left running."""
        self._down_because = f"node {self._peer} at {self.address}: the link was closed"
        if self._connection is not None:
            self._connection.close(self._down_because)
        if self._task is not None:
            self._task.cancel()
        return self._task

    def is_back(self) -> None:
        """Try again now: the peer has just opened a connection itself, so requests may wait for the attempt."""
        if self._connection is None:
            self._greeted.set()

    def _first_connection(self) -> Connection:
        self._connection = self._new_connection()
        self._task = asyncio.get_running_loop().create_task(self._keep_connected(self._connection))
        return self._connection

    async def _keep_connected(self, connection: Connection) -> None:
        backoff_s = self._limits.backoff_min_s
        while True:
            await connect(connection, self.address, timeout_s=self._limits.connect_timeout_s, tls=self._tls)
            if connection.is_ready:
                self._connection = connection
                backoff_s = self._limits.backoff_min_s
            self._down_because = await connection.lost
            self._connection = None
            is_greeted = await self._pause(backoff_s * self._random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, self._limits.backoff_max_s)
            connection = self._new_connection()
            if is_greeted:
                self._connection = connection

    async def _pause(self, seconds: float) -> bool:
        """Wait before the next attempt; true if the peer came back meanwhile."""
        self._greeted.clear()
        try:
            async with asyncio.timeout(seconds):
                return await self._greeted.wait()
        except TimeoutError:
            return False

    def _new_connection(self) -> Connection:
        return Connection(self._identity, self._limits, address=self.address, expected=self._peer)
