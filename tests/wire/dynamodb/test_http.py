from __future__ import annotations

import random
import re
import zlib

import orjson
import pytest

from merganser.model.consistency import Consistency
from merganser.net.http import Request, Response
from merganser.wire.dynamodb.http import DynamoDBApplication
from merganser.wire.dynamodb.signature import Verifier
from wire.dynamodb.fakes import NOW_US, Cluster

SIGNATURE = b"AWS4-HMAC-SHA256 Credential=a/20260921/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"


class Door:
    """An application over the fakes, and what it reported."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.reported: list[Exception] = []
        self.application = DynamoDBApplication(
            cluster.dynamodb,
            Verifier({}, wall_us=lambda: NOW_US),
            rng=random.Random(1),
            report=self.reported.append,
        )

    def send(self, operation: str, body: bytes = b"{}", method: bytes = b"POST", **changed: bytes | None) -> Response:
        headers = {
            b"x-amz-target": b"DynamoDB_20120810." + operation.encode(),
            b"content-type": b"application/x-amz-json-1.0",
            b"authorization": SIGNATURE,
            b"x-amz-date": b"20260921T133320Z",
        }
        for name, value in changed.items():
            key = name.replace("_", "-").encode()
            headers.pop(key, None)
            if value is not None:
                headers[key] = value
        request = Request(method, b"/", list(headers.items()), body, "127.0.0.1:5")
        return self.cluster.run(self.application(request))


@pytest.fixture
def door(cluster: Cluster) -> Door:
    return Door(cluster)


def body_of(response: Response) -> bytes:
    return response.body if isinstance(response.body, bytes) else b"".join(response.body)


def headers_of(response: Response) -> dict[str, str]:
    assert isinstance(response.headers, bytes)
    lines = response.headers.decode().splitlines()
    return dict(line.split(": ", 1) for line in lines)


def test_answer_carries_type_checksum_and_request_id(door: Door) -> None:
    door.send("PutItem", b'{"TableName":"str","Item":{"p":{"S":"a"}}}')
    response = door.send("GetItem", b'{"TableName":"str","Key":{"p":{"S":"a"}}}')
    assert response.status == 200
    assert body_of(response) == b'{"Item":{"p":{"S":"a"}}}'
    headers = headers_of(response)
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert int(headers["x-amz-crc32"]) == zlib.crc32(body_of(response))
    assert re.fullmatch(r"[A-Z0-9]{52}", headers["x-amzn-requestid"])
    assert headers["x-amzn-requestid"] != headers_of(door.send("ListTables"))["x-amzn-requestid"]


@pytest.mark.parametrize(
    ("operation", "body", "answer"),
    [
        (
            "GetItem",
            b'{"TableName":"nope","Key":{"p":{"S":"a"}}}',
            {
                "__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException",
                "message": "Requested resource not found",
            },
        ),
        (
            "ListTables",
            b'{"Limit":0}',
            {
                "__type": "com.amazon.coral.validate#ValidationException",
                "message": "1 validation error detected: Value '0' at 'limit' failed to satisfy constraint: "
                "Member must have value greater than or equal to 1",
            },
        ),
        (
            "ListTables",
            b'{"Limit":true}',
            {
                "__type": "com.amazon.coral.service#SerializationException",
                "Message": "TRUE_VALUE cannot be converted to Integer",
            },
        ),
        ("ListTables", b"{", {"__type": "com.amazon.coral.service#SerializationException"}),
        ("UpdateItem", b"{}", {"__type": "com.amazon.coral.service#UnknownOperationException"}),
        ("Nope", b"{}", {"__type": "com.amazon.coral.service#UnknownOperationException"}),
    ],
)
def test_error_has_dynamodbs_type_and_spelling(door: Door, operation: str, body: bytes, answer: object) -> None:
    response = door.send(operation, body)
    assert response.status == 400
    assert orjson.loads(body_of(response)) == answer
    assert not door.reported


@pytest.mark.parametrize(
    ("name", "value"),
    [("content_type", b"text/plain"), ("content_type", None), ("x_amz_target", None), ("x_amz_target", b"Other.Scan")],
)
def test_request_of_another_protocol_is_an_unknown_operation(door: Door, name: str, value: bytes | None) -> None:
    response = door.send("ListTables", **{name: value})  # type: ignore[arg-type]
    assert orjson.loads(body_of(response)) == {"__type": "com.amazon.coral.service#UnknownOperationException"}


def test_request_without_signature_is_refused(door: Door) -> None:
    response = door.send("ListTables", authorization=None)
    assert response.status == 400
    assert orjson.loads(body_of(response)) == {
        "__type": "com.amazon.coral.service#MissingAuthenticationTokenException",
        "message": "Request is missing Authentication Token",
    }


def test_get_is_a_health_check(door: Door) -> None:
    response = door.send("", method=b"GET")
    assert (response.status, body_of(response)) == (200, b"healthy: dynamodb.us-east-1.amazonaws.com ")


def test_header_sets_the_consistency_of_one_request(door: Door) -> None:
    body = b'{"TableName":"str","Key":{"p":{"S":"a"}}}'
    door.send("GetItem", body, x_merganser_consistency=b"all")
    door.send("GetItem", body)
    assert door.cluster.coordinator.levels == [Consistency.ALL, Consistency.ONE]


def test_unknown_consistency_is_refused_with_the_choices(door: Door) -> None:
    response = door.send("ListTables", x_merganser_consistency=b"SOME")
    assert orjson.loads(body_of(response))["message"] == (
        "x-merganser-consistency is 'SOME': choose one of ONE, TWO, THREE, QUORUM, ALL, ANY, "
        "or numbers such as w=2,pw=1,r=2,pr=1"
    )


def test_our_own_bug_is_reported_and_told_to_nobody(door: Door) -> None:
    bug = KeyError("inside")
    door.cluster.coordinator.failure = lambda key: bug
    response = door.send("GetItem", b'{"TableName":"str","Key":{"p":{"S":"a"}}}')
    assert response.status == 500
    assert b"inside" not in body_of(response)
    assert door.reported == [bug]
