"""Whatever is sent, the answer is DynamoDB's: no error of ours, no wait, nothing in another shape.

Requests are drawn from botocore's model of the API and then spoilt; the seed is fixed, so that a failure repeats.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from merganser.net.http import HttpServer, Request, Response
from merganser.wire.dynamodb.http import DynamoDBApplication
from merganser.wire.dynamodb.shapes import OPERATIONS
from merganser.wire.dynamodb.signature import Verifier
from wire.dynamodb.conftest import stocked
from wire.dynamodb.fakes import NOW_US, Cluster, answered
from wire.dynamodb.test_support import BASES, KEY, members

SEED = 20261126
SIGNATURE = b"AWS4-HMAC-SHA256 Credential=a/20260921/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"
HEADERS = (
    (b"content-type", b"application/x-amz-json-1.0"),
    (b"authorization", SIGNATURE),
    (b"x-amz-date", b"20260921T133320Z"),
)
KINDS = ("com.amazonaws.dynamodb.v20120810#", "com.amazon.coral.service#", "com.amazon.coral.validate#")
NUMBERS = (0, -1, 1, 25, 2**31, -(2**63), 2**64 - 1, 1e30, 1.5, -0.0, 1e308, 5e-324)
NAMES = ("", "a", "p", "str", "idx", "idx-a", "#n", ":v", "é😀", "x" * 3000)
TEXTS = (*NAMES, "\x00", "ALL_OLD", "1e400", "AA==", "true")
EXPRESSIONS = ("p = :v", "SET a = :v", "a = :v AND (((", "#n", "size(a) > :v", "a[99999999999999999999]", "REMOVE a,,")
JUNK: tuple[Callable[[], Any], ...] = (
    list,
    dict,
    lambda: [None],
    lambda: {"": None},
    lambda: {"S": {"S": "a"}},
    lambda: None,
)


INDEXED = {
    "TableName": "idx",
    "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in "ap"],
    "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "idx-a",
            "KeySchema": [{"AttributeName": "a", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
    "BillingMode": "PAY_PER_REQUEST",
}


@pytest.fixture
def door() -> Iterator[Door]:
    for cluster in stocked(is_leaderless=False):
        assert isinstance(cluster.call("CreateTable", INDEXED), dict)
        for name, value in (("str", {"L": [{"N": "1"}, {"SS": ["a"]}]}), ("idx", {"S": "a"})):
            assert cluster.call("PutItem", {"TableName": name, "Item": {**KEY, "a": value}}) == {}
        yield Door(cluster)


class Door:
    """An application, and a check of each of its answers."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.reported: list[Exception] = []
        self.application = DynamoDBApplication(
            cluster.dynamodb, Verifier({}, wall_us=lambda: NOW_US), rng=random.Random(1), report=self.reported.append
        )

    def send(self, body: bytes, *headers: tuple[bytes, bytes], method: bytes = b"POST", path: bytes = b"/") -> None:
        request = Request(method, path, list(headers), body, "127.0.0.1:5")
        response = self.cluster.run(asyncio.wait_for(answered(self.application, request), timeout=20))
        assert not self.reported, (headers, body[:2000])
        check(response, body)

    def call(self, operation: str, body: bytes) -> None:
        if operation == "DeleteTable":  # make it again
            self.cluster.call("CreateTable", {**BASES["CreateTable"], "TableName": "str"})
        self.send(body, (b"x-amz-target", b"DynamoDB_20120810." + operation.encode()), *HEADERS)


def check(response: Response, sent: bytes) -> None:
    body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
    if response.status == 404:
        assert body == b"<UnknownOperationException/>\n"
        return
    assert response.status in (200, 400), (sent[:2000], body)
    if response.status == 400:
        answer = orjson.loads(body)
        kind, _, name = answer["__type"].partition("#")
        assert kind + "#" in KINDS
        assert name.isalpha()
        assert set(answer) <= {"__type", "message", "Message", "Item", "CancellationReasons"}


class Drawing:
    """Draws requests."""

    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)

    def request(self, operation: str) -> dict[str, Any]:
        """A request that is served, with other parameters of the operation, and spoilt in some place or other."""
        base = orjson.dumps(BASES[operation])
        given: dict[str, Any] = orjson.loads(base.replace(b'"str"', b'"idx"') if self.rng.random() < 0.3 else base)
        for name, shape in members(operation).items():
            if self.rng.random() < (0.03 if name in given else 0.15):
                given[name] = self.value(shape, 0)
        if self.rng.random() < 0.2:
            other = members(self.rng.choice(sorted(OPERATIONS)))
            given |= {name: self.value(shape, 0) for name, shape in other.items() if name not in members(operation)}
        if self.rng.random() < 0.4:
            self.spoil(given)
        return given

    def value(self, shape: Any, level: int) -> Any:
        if self.rng.random() < 0.01 or level > 6:
            return self.junk()
        if shape.name == "AttributeValue" and self.rng.random() < 0.9:
            return self.attribute(level)
        if shape.type_name == "structure":
            return {
                name: self.value(member, level + 1)
                for name, member in shape.members.items()
                if name in shape.required_members or self.rng.random() < 0.3
            }
        if shape.type_name == "list":
            return [self.value(shape.member, level + 1) for _ in range(self.rng.randrange(4))]
        if shape.type_name == "map":
            return {self.text(): self.value(shape.value, level + 1) for _ in range(self.rng.randrange(4))}
        if shape.type_name == "string":
            return self.rng.choice(shape.enum) if shape.enum and self.rng.random() < 0.8 else self.text()
        if shape.type_name == "boolean":
            return self.rng.random() < 0.5
        return self.text() if shape.type_name == "blob" else self.rng.choice(NUMBERS)

    def attribute(self, level: int) -> dict[str, Any]:
        kind = self.rng.choice(["S", "N", "B", "SS", "NS", "BS", "L", "M", "BOOL", "NULL"])
        single: dict[str, Any] = {
            "S": self.text(),
            "N": str(self.rng.choice(NUMBERS)),
            "B": self.rng.choice(("", "AA==", "/w==")),
            "BOOL": True,
            "NULL": True,
        }
        if kind == "L":
            return {"L": [self.attribute(level + 1) for _ in range(self.rng.randrange(3))] if level < 5 else []}
        if kind == "M":
            return {"M": {self.text(): self.attribute(level + 1)} if level < 5 else {}}
        return {kind: [single[kind[0]]] if kind[1:] == "S" else single[kind]}

    def text(self) -> str:
        return self.rng.choice(TEXTS + EXPRESSIONS)

    def junk(self) -> Any:
        if self.rng.random() < 0.3:
            return self.rng.choice(NUMBERS)
        return self.text() if self.rng.random() < 0.4 else self.rng.choice(JUNK)()

    def spoil(self, given: Any) -> None:
        """Put something else in one place."""
        while given:
            place = self.rng.choice(list(given) if isinstance(given, dict) else range(len(given)))
            inner = given[place]
            if not isinstance(inner, dict | list) or self.rng.random() < 0.3:
                given[place] = self.junk()
                return
            given = inner

    def broken(self, body: bytes) -> bytes:
        """JSON that is cut, or has other bytes in it."""
        changed = bytearray(body[: self.rng.randrange(len(body) + 1)] if self.rng.random() < 0.5 else body)
        for _ in range(self.rng.randrange(1, 4)):
            at = self.rng.randrange(len(changed) + 1)
            changed[at : at + self.rng.randrange(2)] = self.rng.randbytes(self.rng.randrange(1, 3))
        return bytes(changed)


def test_every_operation_is_spoilt() -> None:
    assert set(OPERATIONS) == set(BASES)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_members_of_any_type_are_answered(door: Door, operation: str) -> None:
    drawing = Drawing(f"{SEED} {operation}")
    for _ in range(150):
        request = drawing.request(operation)
        door.call(operation, orjson.dumps(request, option=orjson.OPT_NON_STR_KEYS))


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_json_that_is_cut_or_broken_is_answered(door: Door, operation: str) -> None:
    drawing = Drawing(f"{SEED} {operation}")
    for _ in range(60):
        door.call(operation, drawing.broken(orjson.dumps(BASES[operation])))


NO_OBJECTS = (b"", b"null", b"1", b'"a"', b"[]", b"[{}]", b"\xff\xfe", b'{"TableName":"\\ud800"}')
NESTED = (b"[" * 100_000, b'{"a":' * 100_000, b'{"TableName":' + b"[" * 900 + b"]" * 900 + b"}")


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_what_is_no_object_is_answered(door: Door, operation: str) -> None:
    for body in NO_OBJECTS + NESTED:
        door.call(operation, body)


@pytest.mark.parametrize("kind", ["L", "M"])
def test_values_nested_to_the_limit_of_json_are_answered(door: Door, kind: str) -> None:
    start, end = (b'{"L":[', b"]}") if kind == "L" else (b'{"M":{"a":', b"}}")
    value = start * 500 + b'{"S":"a"}' + end * 500
    for operation, base in BASES.items():
        given = {**base, **{name: 1 for name, shape in members(operation).items() if is_of_values(shape)}}
        text = orjson.dumps(given)
        for name, shape in members(operation).items():
            if is_of_values(shape):
                text = text.replace(b'"%b":1' % name.encode(), b'"%b":{"p":%b}' % (name.encode(), value), 1)
        door.call(operation, text)


def is_of_values(shape: Any) -> bool:
    return bool(shape.type_name == "map" and shape.value.name == "AttributeValue")


def test_headers_of_any_kind_are_answered(door: Door) -> None:
    rng = random.Random(SEED)
    names = (
        *(name for name, _ in HEADERS),
        b"x-amz-target",
        b"content-encoding",
        b"accept-encoding",
        b"origin",
        b"x-merganser-consistency",
    )
    values = (
        SIGNATURE,
        b"",
        b"AWS4-",
        b"AWS4-HMAC-SHA256 Credential, =, Signature==",
        b"gzip",
        b"gzip;q=x",
        b"\xff\x80",
        b",;=",
        b"DynamoDB_20120810.Scan",
        b"DynamoDB_20120810.",
        b"application/json;",
        b"w=1,r=",
    )
    paths = (b"/", b"/?X-Amz-Algorithm", b"/?X-Amz-Algorithm=&X-Amz-Expires=1e9&\xff=%", b"*", b"/a?b&&=;", b"//..%00")
    for _ in range(1500):
        headers = [(rng.choice(names), rng.choice(values)) for _ in range(rng.randrange(6))]
        method = rng.choice((b"POST", b"POST", b"POST", b"PUT", b"OPTIONS", b"HEAD", b"GET"))
        door_send_any(door, rng.choice((b"", b"{}", b"{", rng.randbytes(30))), headers, method, rng.choice(paths))


def door_send_any(door: Door, body: bytes, headers: list[tuple[bytes, bytes]], method: bytes, path: bytes) -> None:
    if method in (b"HEAD", b"GET"):
        request = Request(method, path, headers, body, "127.0.0.1:5")
        assert door.cluster.run(answered(door.application, request)).status == 200
    else:
        door.send(body, *headers, method=method, path=path)


def test_bytes_of_any_kind_on_a_socket_are_answered_or_the_connection_closed(door: Door) -> None:
    rng = random.Random(SEED)
    whole = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\n\r\n{}"
    tokens = (
        b"\r\n",
        b"\r\n\r\n",
        b"0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"HTTP/1.0",
        b"\x00",
        b": ",
        b"FFFFFFFFFFFFFFFFF\r\n",
    )

    def message() -> bytes:
        changed = bytearray(whole * rng.randrange(1, 3))
        for _ in range(rng.randrange(1, 5)):
            at = rng.randrange(len(changed))
            changed[at : at + rng.randrange(8)] = rng.choice((*tokens, rng.randbytes(4)))
        return bytes(changed) if rng.random() < 0.9 else rng.randbytes(200)

    async def scenario() -> None:
        errors: list[BaseException] = []
        server = HttpServer(door.application, on_error=errors.append)
        port = await server.listen("127.0.0.1", 0)
        for _ in range(120):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            sent = message()
            writer.write(sent)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), timeout=20)
            writer.close()
            for line in answer.split(b"\r\n"):
                if line.startswith(b"HTTP/1.1 "):
                    assert line[9:10] in (b"1", b"2", b"4"), (sent, answer)
        assert not errors
        await server.close(1.0)

    door.cluster.run(scenario())
    assert not door.reported
