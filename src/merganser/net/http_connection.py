"""One client's HTTP/1.1 connection: the bytes it sends to requests, the answers to bytes in their order.

A connection is in one of these states; each but the last two has a time limit::

    idle --first byte--> incomplete --whole--> serving --answered--> idle
      |                      |                    |
      +-- idle_timeout_s     +-- request_timeout_s: 408              last answer, or the peer left: closed

Pipelined requests are answered in their order. They run at the same time only while all of them are
safe (RFC 9110 §9.2.1); any other waits for those before it and is waited for by those after it
(RFC 9112 §9.3.2), so that a read sees the write sent before it.

A body is charged to the server's budget piece by piece. What does not fit is refused at once, so that
nobody ever waits for room: the refused one gives its bytes back, and others go on. The bytes of a request
are given back when it is answered or dropped.

A client that leaves does not cancel its request: a write under way would end half done. The answer is
dropped.

Invariants: responses leave in request order; what a client can make us hold is bounded by
`HttpLimits`, one read of the socket and one answer; nothing is read or begun while the client does not take its
answers; after an error of the protocol one response says so and the connection closes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

import httptools

from merganser.net.begun import begin
from merganser.net.http_encoding import JOIN_BYTES_MAX
from merganser.net.http_incoming import QUESTIONED_BYTES, Incoming, RefusedRequestError
from merganser.net.http_messages import Exchange, Request, Response, text_response

if TYPE_CHECKING:
    from merganser.net.http import HttpServer

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))
_NEVER = float("inf")
_LINGER_S = 2.0
"""Enough for an answer to cross the world, too short to be worth an attacker's while."""


class HttpConnection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, server: HttpServer) -> None:
        """Wait for the first request."""
        self._loop = asyncio.get_running_loop()
        self._server = server
        self._room = server.take_bytes
        self._limits = server.limits
        self._incoming = Incoming(self, server)
        self._exchanges: deque[Exchange] = deque()
        """In request order: answered first ones have left, the rest is running or waiting."""
        self._waiting: deque[Exchange] = deque()
        """The end of `_exchanges`: not begun."""
        self._running = 0
        self._is_unsafe_running = False
        self._unwritten: list[bytes] = []
        self._is_flush_due = False
        self._is_paused = False
        self._is_reading = True
        self._is_input_over = False
        """Nothing the client still says is heard."""
        self._is_refused = False
        """The last answer comes before the end of its request."""
        self._is_lingering = False
        self._is_one_too_many = False
        self._stalled_bytes = 0
        self._answers_bytes = 0
        """Charged to the server."""
        self.expires_at = self._loop.time() + self._limits.idle_timeout_s
        """By the loop's clock."""
        self.lost: asyncio.Future[None] = self._loop.create_future()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who it is."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._is_plain = transport.get_extra_info("sslcontext") is None  # TLS cannot be closed by halves
        self._server.connections.add(self)
        peername = transport.get_extra_info("peername")
        self._peer = self._incoming.peer = f"{peername[0]}:{peername[1]}" if isinstance(peername, tuple) else ""
        if self._server.is_closing:
            self.abort()
        elif len(self._server.connections) - self._server.refusals > self._limits.connections_max:
            self._turn_away()

    def data_received(self, data: bytes) -> None:
        """Begin the requests that ``data`` completes."""
        if self._is_input_over:
            return
        incoming = self._incoming
        if incoming.is_in_message or not self._take_usual(data):
            self._parse(data)
        if incoming.is_in_head:
            incoming.head_bytes += len(data)
            if incoming.head_bytes > self._limits.header_bytes_max and not self._is_input_over:
                self._refuse(text_response(431, incoming.too_many_header_bytes()))
        if self._waiting or not self._is_reading:
            self._begin_due()
        self._note_time()

    def eof_received(self) -> bool:
        """Answer what was asked; the client has only said that nothing more comes."""
        self.close_when_answered()
        return self._is_plain and not self._is_lingering and not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let what is running end; drop the rest."""
        self._is_input_over = True
        self._incoming.drop()
        self._drop_exchanges()
        self._unwritten.clear()
        self._charge_answers(0)
        self._server.refusals -= self._is_one_too_many
        self._server.connections.discard(self)
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        """Begin nothing more until the client has taken its answers."""
        self._is_paused = True
        self._stalled_bytes = self._transport.get_write_buffer_size()
        self._charge_answers(self._stalled_bytes)
        self._read_if_room()
        self._note_time()

    def resume_writing(self) -> None:
        """Go on."""
        self._is_paused = False
        self._charge_answers(0)
        self.flush()
        self._begin_due()
        self._note_time()

    # What the server calls.

    def close_when_answered(self) -> None:
        """Hear nothing more; close after the last answer."""
        self._is_input_over = True
        if not self._exchanges and not self._unwritten:
            self._transport.close()
        elif self._exchanges:
            self._exchanges[-1].is_last = True

    def abort(self) -> None:
        """Close without another word."""
        self._is_input_over = True
        self._transport.abort()

    def expire(self, now: float) -> None:
        """Act on ``expires_at`` having passed."""
        if self._is_lingering or self._transport.is_closing():
            self.abort()
        elif self._is_paused:
            buffered_bytes = self._transport.get_write_buffer_size()
            if buffered_bytes >= self._stalled_bytes:
                self.abort()
            self._stalled_bytes = buffered_bytes
            self._charge_answers(buffered_bytes)
            self.expires_at = now + self._limits.request_timeout_s
        elif self._incoming.is_in_message and not self._is_input_over:
            self._refuse(text_response(408, f"the request took longer than {self._limits.request_timeout_s:g} s"))
            self._note_time()
        else:
            self._transport.close()

    # Reading.

    def _take_usual(self, data: bytes) -> bool:
        """Put the request that ``data`` is in line, if it is as usual and there is room for it; else it is parsed."""
        usual = self._server.heads.read(data)
        if usual is None or self._server.is_draining:  # then it is the last, which only the parser makes of it
            return False
        headers, named, body = usual
        size, limits = len(body), self._limits
        if (
            size >= QUESTIONED_BYTES
            or size > limits.body_bytes_max
            or self._server.bodies_bytes + size > limits.bodies_bytes_max
            or len(data) - size > limits.header_bytes_max
            or len(headers) > limits.headers_max
        ):
            return False
        self._server.bodies_bytes += size
        request = Request(b"POST", b"/", headers, body, self._peer, self._room, 0, named)
        self.put_in_line(Exchange(request, is_last=False))
        return True

    def put_in_line(self, exchange: Exchange) -> None:
        """Take a request that has come whole (called by what reads); nothing is heard after the last one."""
        self._exchanges.append(exchange)
        self._waiting.append(exchange)  # from here on its bytes are the exchange's to give back
        self._is_input_over |= exchange.is_last

    def _parse(self, data: bytes) -> None:
        self._incoming.read_bytes = len(data)
        while data:
            try:
                self._incoming.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = self._incoming.head_without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserCallbackError as error:
                if not isinstance(error.__context__, RefusedRequestError):
                    raise
                self._refuse(error.__context__.response)
                return
            except httptools.HttpParserError as error:
                if not self._is_input_over:  # bytes after the last request are nothing to us
                    self._refuse(text_response(400, f"this is not HTTP/1.1: {error}"))
                return

    def _refuse(self, response: Response) -> None:
        exchange = Exchange(None, is_last=True)
        exchange.answer = self._server.encode(exchange, response)
        self._is_input_over = self._is_refused = True
        self._incoming.drop()
        self._exchanges.append(exchange)
        self.answer_done()

    def _note_time(self) -> None:
        if self._is_lingering:
            return
        if self._is_paused:
            self.expires_at = self._loop.time() + self._limits.request_timeout_s
        elif self._incoming.is_in_message and self._is_reading and not self._is_input_over:
            self.expires_at = self._incoming.began_at + self._limits.request_timeout_s
        elif self._exchanges:
            self.expires_at = _NEVER
        else:
            self.expires_at = self._loop.time() + self._limits.idle_timeout_s

    # Too much.

    def _turn_away(self) -> None:
        """Tell the client that there are too many, if not too many are being told just now."""
        self._server.refused_connections += 1
        if self._server.refusals >= self._limits.refusals_max:
            self.abort()
            return
        self._is_one_too_many = True
        self._server.refusals += 1
        self._refuse(text_response(503, f"{self._limits.connections_max} connections are open; try again later"))

    def _charge_answers(self, unwritten_bytes: int) -> None:
        """Note how much of its answers the client has not taken; close it if all together have left too much."""
        self._server.answers_bytes += unwritten_bytes - self._answers_bytes
        self._answers_bytes = unwritten_bytes
        if unwritten_bytes and self._server.answers_bytes > self._limits.answers_bytes_max:
            self.abort()

    # Serving.

    def _begin_due(self) -> None:
        while self._waiting and not self._is_paused:
            request = self._waiting[0].request
            assert request is not None
            is_safe = request.method in _SAFE
            if self._running and (self._is_unsafe_running or not is_safe):
                break
            self._running += 1
            self._is_unsafe_running = not is_safe
            self._server.serve_soon(self, self._waiting.popleft(), request)
        self._read_if_room()

    def serve(self, exchange: Exchange, request: Request) -> asyncio.Task[None] | None:
        """Have a request answered (called by the server); returns the task that waits for the answer, if one has to."""
        server = self._server
        try:
            response = server.application(request)
            if not isinstance(response, Response):
                return begin(self._answer_when_there(exchange, request, response), self._loop)
            answer = server.encode(exchange, response)
        except Exception as error:  # noqa: BLE001 - the application's bug
            answer = server.report(exchange, error)
        self._take_answer(exchange, request, answer)
        return None

    async def _answer_when_there(
        self, exchange: Exchange, request: Request, response: Coroutine[Any, Any, Response]
    ) -> None:
        server = self._server
        try:
            answer = server.encode(exchange, await response)
        except Exception as error:  # noqa: BLE001 - the application's bug
            answer = server.report(exchange, error)
        except BaseException:  # cancelled: nobody waits for it any more
            server.bodies_bytes -= len(request.body) + request.held_bytes
            raise
        self._take_answer(exchange, request, answer)

    def _take_answer(self, exchange: Exchange, request: Request, answer: list[bytes]) -> None:
        exchange.answer = answer
        self._server.bodies_bytes -= len(request.body) + request.held_bytes
        exchange.request = None  # an answer that waits for others holds no body
        self._running -= 1
        if self._transport.is_closing():
            return
        self.answer_done()
        if self._waiting or not self._is_reading:
            self._begin_due()
        self._note_time()

    def _read_if_room(self) -> None:
        wants_to_read = not self._is_paused and self._has_room()
        if wants_to_read == self._is_reading or self._transport.is_closing():
            return
        self._is_reading = wants_to_read
        if wants_to_read:
            self._incoming.began_at = self._loop.time()  # the client is not late for what we did not read
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _has_room(self) -> bool:
        if len(self._exchanges) >= self._limits.pipelined_max:
            return not self._exchanges
        return not self._waiting or self._bytes_waiting() < self._limits.body_bytes_max

    def _bytes_waiting(self) -> int:
        return sum(len(exchange.request.body) for exchange in self._waiting if exchange.request is not None)

    def _drop_exchanges(self) -> None:
        self._server.bodies_bytes -= self._bytes_waiting()
        self._waiting.clear()
        self._exchanges.clear()

    # Answering.

    def answer_done(self) -> None:
        """Write what is answered up to here in line, with the answers of other connections."""
        while self._exchanges and self._exchanges[0].answer is not None:
            exchange = self._exchanges.popleft()
            self._unwritten += cast("list[bytes]", exchange.answer)
            if exchange.is_last:
                self._is_input_over = True
                self._drop_exchanges()
        if self._incoming.is_continue_due and not self._exchanges:
            self._incoming.is_continue_due = False
            self._unwritten.append(_CONTINUE)
        if self._unwritten and not self._is_flush_due:
            self._is_flush_due = True
            self._server.flush_soon(self)

    def flush(self) -> None:
        """Write what is answered (called by the server)."""
        self._is_flush_due = False
        if self._transport.is_closing() or self._is_paused:
            return
        pieces, self._unwritten = self._unwritten, []
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        elif pieces:
            if sum(map(len, pieces)) <= JOIN_BYTES_MAX:
                self._transport.write(b"".join(pieces))
            else:
                self._transport.writelines(pieces)
        if self._is_input_over and not self._exchanges and not self._unwritten:
            self._end()

    def _end(self) -> None:
        """Close; after a refusal only once the client has had time to read it.

        Closing a socket with unread bytes resets it, and the client would lose the answer with them.
        """
        if not self._is_refused or not self._transport.can_write_eof():
            self._transport.close()
        elif not self._is_lingering:
            self._is_lingering = True
            self.expires_at = self._loop.time() + _LINGER_S
            self._transport.write_eof()
