"""Compressed bodies: what they expand to is bounded and charged."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib

import pytest

from merganser.model.errors import OverloadedError
from merganser.net.http import HttpLimits, Request, Response
from merganser.net.http_compression import BodyTooLargeError, UnreadableBodyError, expanded, gzipped
from net.http_client import Run, connected, responses, serving, statuses, until

MEBIBYTE = 1024 * 1024


def request(body: bytes) -> Request:
    return Request(b"POST", b"/", [], body, "")


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 300_000])
@pytest.mark.parametrize("letter", [b"a", b""])
def test_what_was_compressed_comes_back(size: int, letter: bytes) -> None:
    body = letter * size if letter else b"".join(zlib.crc32(b"%d" % i).to_bytes(4, "big") for i in range(size // 4))
    compressed = request(gzip.compress(body))
    assert expanded(compressed, b"gzip", bytes_max=300_000) == body
    assert compressed.held_bytes == len(body)


def test_a_bomb_is_stopped_at_its_bound() -> None:
    bomb = gzip.compress(bytes(64 * MEBIBYTE))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError, match=f"more than {MEBIBYTE} bytes"):
            expanded(request(bomb), b"gzip", bytes_max=MEBIBYTE)
        assert tracemalloc.get_traced_memory()[1] < 3 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_members_without_end_are_not_gone_through() -> None:
    with pytest.raises(UnreadableBodyError, match="something follows it"):
        expanded(request(gzip.compress(b"") * 10_000), b"gzip", bytes_max=MEBIBYTE)


def test_compressed_pieces_are_one_file_and_let_others_have_turns(run: Run) -> None:
    async def scenario() -> None:
        pieces = [b"[", bytes(MEBIBYTE), b"]" * 1000, bytes(MEBIBYTE)]
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        compressed = await gzipped(pieces)
        task.cancel()
        await asyncio.wait([task])
        assert gzip.decompress(b"".join(compressed)) == b"".join(pieces)
        assert turns >= 3

    run(scenario())


def test_what_a_body_expands_to_is_charged_until_it_is_answered(run: Run) -> None:
    body = gzip.compress(bytes(700))

    async def scenario() -> None:
        go_on = asyncio.Event()

        async def application(asked: Request) -> Response:
            try:
                expanded(asked, b"gzip", bytes_max=1000)
            except OverloadedError:
                return Response(503)
            await go_on.wait()
            return Response(200)

        async with serving(application, HttpLimits(bodies_bytes_max=1000, body_bytes_max=1000)) as (server, port):
            first, second = await connected(port), await connected(port)
            message = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            first.say(message)
            await until(lambda: server.bodies_bytes == 700 + len(body))
            second.say(message)
            await until(lambda: bool(second.pieces))
            assert statuses(responses(second.heard)) == [503]
            assert server.bodies_bytes == 700 + len(body)
            go_on.set()
            await until(lambda: bool(first.pieces))
            assert statuses(responses(first.heard)) == [200]
            assert server.bodies_bytes == 0
            first.transport.abort()
            second.transport.abort()

    run(scenario())
