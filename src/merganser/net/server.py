"""Incoming requests from peers: the listening socket (`PeerServer`) and each connection on it (`Incoming`).

States of an incoming connection::

    stranger --Hello without objection--> greeted --lost or damaged--> gone
        |                                                               ^
        +-- objection, or damaged bytes: Rejected; or silence ----------+

A call is ``_unserved`` until there is room for it, then begun: it is answered at once, or it is ``_serving``, by a
future or, where the handler has to be asked, a task each. Its deadline runs from its arrival, and a call whose time is
up is dropped or cancelled without an answer, for its caller has given up as well. While there is no room, or the peer
does not take its answers, nothing is read.

A request of a client that cannot be decoded is refused, as long as its frame tells its id (`net.unreadable`); other
damage ends the connection, and is told the caller before (`Rejected`). Nodes of no release send what another cannot
decode: of theirs any damage ends it.

A caller that goes away does not stop what it asked for: its calls run on to their deadlines and the
answers are dropped.

Invariants: at most ``requests_served_max`` futures and tasks per connection, besides those being cancelled;
``_unserved`` holds no more calls than one read of the socket brought; answers of one turn of the loop
leave in one write; what a client asks for and may not is never served.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from merganser.model.client_messages import CLIENT_REQUESTS, NOT_FOR_CLIENTS
from merganser.model.errors import CorruptionError, InvariantError, MerganserError, RequestError
from merganser.model.ids import NodeId
from merganser.model.messages import Reply, Request
from merganser.model.refusal import Refused
from merganser.net.deadlines import Deadlines
from merganser.net.frame_bodies import Answer, Call, Frame, Hello, Rejected, Unreadable
from merganser.net.frames import HELLO_BYTES_MAX, FrameDecoder, FrameTooLargeError, encode
from merganser.net.handshake import Identity
from merganser.net.limits import PeerLimits
from merganser.net.sockets import detect_dead_peer
from merganser.net.transport import Beginner, Handler, begins_nothing, refusal_code, refused
from merganser.net.unreadable import unreadable

_WRITE_BUFFER_BYTES = 256 * 1024


class PeerServer:
    """Serves the requests of all peers."""

    def __init__(
        self,
        identity: Identity,
        handler: Handler,
        on_error: Callable[[BaseException], None],
        *,
        begin: Beginner = begins_nothing,
        limits: PeerLimits,
        tls: ssl.SSLContext | None,
    ) -> None:
        """Serve with ``begin`` and ``handler``; report their bugs, and damaged bytes, to ``on_error``."""
        self.identity = identity
        self.limits = limits
        self.on_error = on_error
        self.connections: set[Incoming] = set()
        self.serving: set[asyncio.Future[Any]] = set()
        self.clients = 0
        """Connections of clients, which are among `connections`."""
        self._handler = handler
        self._begin = begin
        self._tls = tls
        self._listeners: list[asyncio.Server] = []
        self.on_greeted: Callable[[NodeId], None] | None = None
        """Told of every node that opens a connection."""

    async def listen(self, host: str, port: int) -> asyncio.Server:
        """Accept peers on ``host`` and ``port`` (0 picks a free one).

        Raises:
            OSError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        patience_s = self.limits.connect_timeout_s if self._tls else None
        listener = await loop.create_server(
            lambda: Incoming(self), host, port, ssl=self._tls, ssl_handshake_timeout=patience_s
        )
        self._listeners.append(listener)
        return listener

    async def stop_listening(self) -> None:
        """Give the ports back."""
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.close()
            await listener.wait_closed()

    async def reply(self, sender: NodeId, request: Request) -> Reply:
        """Return what the handler says, or how it failed."""
        try:
            return await self._handler(sender, request)
        except Exception as error:  # noqa: BLE001 - the root of the task
            return self.reply_to_failure(error)

    def begin(self, sender: NodeId, request: Request) -> asyncio.Future[Reply] | Reply | None:
        """Return the answer or its future, None if `reply` is to be asked."""
        try:
            return self._begin(sender, request)
        except Exception as error:  # noqa: BLE001 - nobody is above
            return self.reply_to_failure(error)

    def reply_to_failure(self, error: BaseException) -> Refused:
        """Return what a peer is told of how its request failed."""
        if isinstance(error, MerganserError) and not isinstance(error, InvariantError):
            return refused(error)
        return self._internal(error)

    def encode_answer(self, request_id: int, reply: Reply) -> bytes:
        """Return the frame, or that of a refusal if there is no frame for ``reply``."""
        try:
            return encode(Answer(request_id, reply), frame_bytes_max=self.limits.frame_bytes_max)
        except FrameTooLargeError as error:
            return encode(Answer(request_id, Refused("reply_too_large", str(error))))
        except (TypeError, ValueError, OverflowError) as error:  # the handler returned no Reply
            return encode(Answer(request_id, self._internal(error)))

    async def close(self) -> None:
        """Stop listening, cancel what is being served, close every connection."""
        for listener in self._listeners:
            listener.close()
        for connection in self.connections:
            connection.stop_taking()
        for served in list(self.serving):
            served.cancel()
        if self.serving:
            await asyncio.wait(self.serving, timeout=self.limits.close_timeout_s)
        connections = list(self.connections)
        for connection in connections:
            connection.close()
        if connections:
            await asyncio.wait([c.lost for c in connections], timeout=self.limits.close_timeout_s)
        for connection in list(self.connections):  # a peer that does not take its answers
            connection.abort()
        for listener in self._listeners:
            await listener.wait_closed()

    def _internal(self, error: BaseException) -> Refused:
        self.on_error(error)
        return Refused("internal", f"{type(error).__name__}: {error}")


class Incoming(asyncio.Protocol):
    """One connection that a peer opened to us."""

    def __init__(self, server: PeerServer) -> None:
        """Wait for the peer to say hello."""
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._decoder = FrameDecoder(frame_bytes_max=HELLO_BYTES_MAX, rescue=unreadable)
        self._deadlines = Deadlines(self._loop, self._expire)
        self._caller: NodeId | None = None
        self._is_client = False
        self._unserved: dict[int, tuple[Call, set[int]]] = {}
        self._serving: dict[int, asyncio.Future[Any]] = {}
        self._unwritten: list[bytes] = []
        self._is_paused = False
        self._is_reading = True
        self._is_closing = False
        self._is_flush_due = False
        self.lost: asyncio.Future[None] = self._loop.create_future()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the greeting, not for ever."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._silence = self._loop.call_later(self._server.limits.connect_timeout_s, self.abort)
        self._server.connections.add(self)
        if len(self._server.connections) > self._server.limits.connections_max:
            self.abort()
            return
        detect_dead_peer(transport)
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Start serving the requests that ``data`` completes."""
        if self._is_closing:
            return
        try:
            for frame in self._decoder.feed(data):
                if type(frame) is Call and self._caller is not None:
                    if self._is_client and type(frame.body) not in CLIENT_REQUESTS:
                        self._refuse(frame)
                        continue
                    bucket = self._deadlines.add(frame.id, frame.timeout_ms / 1000)
                    if not self._unserved and self._has_room():
                        self._begin(frame, bucket)
                    else:
                        self._unserved[frame.id] = frame, bucket
                elif type(frame) is Unreadable and self._is_client:
                    self._refuse_unreadable(frame)
                else:
                    self._greet(frame)
        except CorruptionError as error:
            if self._caller is not None:  # port scanners are no news
                self._server.on_error(error)
            self._reject(str(error))
        self._read_if_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let what is being served end; drop the rest."""
        self._silence.cancel()
        self.stop_taking()
        self._unwritten.clear()
        if self._is_client:
            self._is_client = False
            self._server.clients -= 1
        self._server.connections.discard(self)
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """Keep answers here, and take no more requests, until the peer has taken some."""
        self._is_paused = True
        self._read_if_room()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_paused = False
        self._flush_soon()
        self._serve_due()

    # Ends.

    def stop_taking(self) -> None:
        """Ignore what arrives from now on, and what has arrived and is not being served."""
        self._is_closing = True
        self._unserved.clear()

    def close(self) -> None:
        """Write the answers there are, then close."""
        self._is_paused = False
        self._flush()
        self._deadlines.close()
        self._transport.close()

    def _reject(self, why: str) -> None:
        """Close with ``why`` as the last word, and without it if the peer does not take it."""
        self._unwritten.append(encode(Rejected(why)))
        self.stop_taking()
        self._silence.cancel()
        self._silence = self._loop.call_later(self._server.limits.connect_timeout_s, self.abort)
        self.close()

    def abort(self) -> None:
        """Close without another word."""
        self.stop_taking()
        self._transport.abort()

    # Greeting.

    def _greet(self, frame: Frame) -> None:
        """Take the first frame of the peer.

        Raises:
            CorruptionError: it is not what a peer says first, or it is not the first.
        """
        if self._is_closing:
            return
        if not isinstance(frame, Hello) or self._caller is not None:
            if isinstance(frame, Unreadable):
                raise CorruptionError(f"a peer sent a call that is not a frame: {frame.why}")
            raise CorruptionError(
                f"a {type(frame).__name__} where there is no place for one: run the same release on both"
            )
        self._silence.cancel()
        objection = self._server.identity.objection(frame)
        if objection is None and frame.is_client and self._server.clients >= self._server.limits.clients_max:
            objection = f"{self._server.clients} clients are connected, no more are taken: ask another node"
        if objection is not None:
            self._reject(objection)
            return
        self._caller = NodeId(frame.node_id)
        self._is_client = frame.is_client
        if frame.is_client:
            self._server.clients += 1
        elif self._server.on_greeted is not None:
            self._server.on_greeted(self._caller)
        self._decoder.frame_bytes_max = self._server.limits.frame_bytes_max
        self._write(encode(self._server.identity.hello(to_client=frame.is_client)))

    # Requests.

    def _refuse(self, call: Call) -> None:
        what = f"a client may not ask a node for {type(call.body).__name__}"
        self._write(self._server.encode_answer(call.id, Refused(NOT_FOR_CLIENTS, what)))

    def _refuse_unreadable(self, call: Unreadable) -> None:
        what = f"the node could not read the request, and did nothing: {call.why}"
        self._write(self._server.encode_answer(call.id, Refused(refusal_code(RequestError()), what)))

    def _serve_due(self) -> None:
        while self._unserved and self._has_room():
            self._begin(*self._unserved.pop(next(iter(self._unserved))))
        self._read_if_room()

    def _begin(self, call: Call, bucket: set[int]) -> None:
        assert self._caller is not None
        begun = self._server.begin(self._caller, call.body)
        if begun is None:
            served: asyncio.Future[Any] = self._loop.create_task(self._serve(call, bucket))
        elif isinstance(begun, asyncio.Future):
            served = begun
            served.add_done_callback(partial(self._answer, call.id, bucket))
        else:
            bucket.discard(call.id)
            self._write(self._server.encode_answer(call.id, begun))
            return
        self._serving[call.id] = served
        self._server.serving.add(served)

    def _answer(self, request_id: int, bucket: set[int], served: asyncio.Future[Reply]) -> None:
        """Write what a future has come to."""
        if not served.cancelled():
            error = served.exception()
            reply = served.result() if error is None else self._server.reply_to_failure(error)
            self._write(self._server.encode_answer(request_id, reply))
        self._end(request_id, bucket)

    def _has_room(self) -> bool:
        return not self._is_paused and len(self._serving) < self._server.limits.requests_served_max

    def _read_if_room(self) -> None:
        if self._is_closing:
            return
        wants_to_read = self._has_room() and not self._unserved
        if wants_to_read and not self._is_reading:
            self._transport.resume_reading()
        elif self._is_reading and not wants_to_read:
            self._transport.pause_reading()
        self._is_reading = wants_to_read

    async def _serve(self, call: Call, bucket: set[int]) -> None:
        assert self._caller is not None
        try:
            reply = await self._server.reply(self._caller, call.body)
            self._write(self._server.encode_answer(call.id, reply))
        finally:
            self._end(call.id, bucket)

    def _end(self, request_id: int, bucket: set[int]) -> None:
        bucket.discard(request_id)
        served = self._serving.pop(request_id, None)
        if served is not None:
            self._server.serving.discard(served)
        if self._unserved or not self._is_reading:
            self._serve_due()

    def _expire(self, request_id: int) -> None:
        served = self._serving.pop(request_id, None)
        if served is None:
            self._unserved.pop(request_id, None)
            return
        served.add_done_callback(self._server.serving.discard)
        served.cancel()  # which may come before the first step of a task, so that `_serve` cannot clean up
        self._serve_due()

    def _write(self, frame: bytes) -> None:
        if not self._transport.is_closing():
            self._unwritten.append(frame)
            self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._is_flush_due and not self._is_paused:
            self._is_flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._unwritten and not self._is_paused and not self._transport.is_closing():
            frames = b"".join(self._unwritten)
            self._unwritten.clear()
            self._transport.write(frames)
