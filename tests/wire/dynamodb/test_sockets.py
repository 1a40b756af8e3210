"""DynamoDB on one connection, by raw bytes: requests in every form that HTTP has for them."""

from __future__ import annotations

import asyncio
import random

import orjson

from merganser.net.http import HttpServer
from merganser.wire.dynamodb.http import DynamoDBApplication, body_bound, too_large
from merganser.wire.dynamodb.signature import Verifier
from net.http_client import responses
from wire.dynamodb.fakes import NOW_US, Cluster

LINES = (
    b"Host: localhost\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Date: 20260921T133320Z\r\n"
    b"Authorization: AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=0\r\n"
)


def request(
    operation: bytes, body: bytes, *, framing: bytes = b"", version: bytes = b"1.1", more: bytes = b""
) -> bytes:
    framing = framing or b"Content-Length: %d\r\n" % len(body)
    target = b"X-Amz-Target: DynamoDB_20120810.%b\r\n" % operation
    return b"POST / HTTP/%b\r\n%b%b%b%b\r\n%b" % (version, LINES, target, framing, more, body)


def put(number: int) -> bytes:
    return b'{"TableName":"str","Item":{"p":{"S":"a"},"n":{"N":"%d"}}}' % number


GET = b'{"TableName":"str","Key":{"p":{"S":"a"}}}'
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def answers(cluster: Cluster, *pieces: bytes) -> list[tuple[int, dict[bytes, bytes], bytes]]:
    """Say ``pieces`` one after the other, and return what is heard until the server closes."""

    async def scenario() -> bytes:
        errors: list[BaseException] = []
        application = DynamoDBApplication(
            cluster.dynamodb, Verifier({}, wall_us=lambda: NOW_US), rng=random.Random(1), report=errors.append
        )
        server = HttpServer(application, on_error=errors.append, body_bound=body_bound, too_large=too_large)
        reader, writer = await asyncio.open_connection("127.0.0.1", await server.listen("127.0.0.1", 0))
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        heard = await asyncio.wait_for(reader.read(), timeout=20)
        writer.close()
        await server.close(1.0)
        assert not errors
        return heard

    return responses(cluster.run(scenario()))


def test_pipelined_requests_see_those_before_them_and_are_answered_in_order(cluster: Cluster) -> None:
    pipeline = b"".join(request(b"PutItem", put(n)) + request(b"GetItem", GET) for n in range(20))
    heard = answers(cluster, pipeline)
    assert [status for status, _, _ in heard] == [200] * 40
    assert [orjson.loads(body)["Item"]["n"]["N"] for _, _, body in heard[1::2]] == [str(n) for n in range(20)]
    assert len({headers[b"x-amzn-requestid"] for _, headers, _ in heard}) == 40


def test_an_error_leaves_the_connection_to_those_after_it(cluster: Cluster) -> None:
    wrong = request(b"GetItem", b"{") + request(b"Nope", b"{}") + request(b"GetItem", b"")
    heard = answers(cluster, wrong + request(b"GetItem", GET))
    assert [status for status, _, _ in heard] == [400, 400, 400, 200]


def test_chunks_in_any_pieces_are_one_body(cluster: Cluster) -> None:
    chunks = b"".join(b"1\r\n%b\r\n" % put(7)[at : at + 1] for at in range(len(put(7)))) + b"0\r\n\r\n"
    whole = request(b"PutItem", chunks, framing=CHUNKED) + request(b"GetItem", GET)
    heard = answers(cluster, *(whole[at : at + 7] for at in range(0, len(whole), 7)))
    assert [status for status, _, _ in heard] == [200, 200]
    assert orjson.loads(heard[1][2])["Item"]["n"] == {"N": "7"}


def test_a_client_that_waits_for_leave_is_given_it(cluster: Cluster) -> None:
    head, _, body = request(b"PutItem", put(1), more=b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")
    assert [status for status, _, _ in answers(cluster, head + b"\r\n\r\n", body)] == [100, 200]


def test_http_1_0_is_closed_after_its_answer_unless_it_asks(cluster: Cluster) -> None:
    kept = request(b"GetItem", GET, version=b"1.0", more=b"Connection: keep-alive\r\n")
    closed = request(b"GetItem", GET, version=b"1.0")
    heard = answers(cluster, kept + closed + kept)
    assert [headers[b"connection"] for _, headers, _ in heard] == [b"keep-alive", b"close"]


def test_the_last_of_several_members_of_one_name_counts(cluster: Cluster) -> None:
    twice = b'{"TableName":"nope","TableName":"str","Key":{"p":{"S":"a"}}}'
    assert [(status, body) for status, _, body in answers(cluster, request(b"GetItem", twice))] == [(200, b"{}")]
