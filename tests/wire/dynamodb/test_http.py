from __future__ import annotations

import asyncio
import gzip
import random
import re
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import botocore.session
import orjson
import pytest
from botocore.retries.standard import ThrottledRetryableChecker

from merganser.model.consistency import Consistency, ReadQuorums, WriteQuorums
from merganser.model.errors import OverloadedError
from merganser.net.http import Request, Response
from merganser.wire.dynamodb.attributes import normalise
from merganser.wire.dynamodb.errors import fault_of
from merganser.wire.dynamodb.http import DynamoDBApplication, body_bound, too_large
from merganser.wire.dynamodb.signature import Verifier
from merganser.wire.dynamodb.unserved import STREAM_OPERATIONS
from wire.dynamodb.fakes import NOW_US, Cluster, answered

SIGNATURE = b"AWS4-HMAC-SHA256 Credential=a/20260921/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0"


class Door:
    """An application over the fakes, and what it reported."""

    def __init__(
        self,
        cluster: Cluster,
        places: Places | None = None,
        *,
        has_browsers: bool = True,
    ) -> None:
        self.cluster = cluster
        self.reported: list[Exception] = []
        self.application = DynamoDBApplication(
            cluster.dynamodb,
            Verifier({}, wall_us=lambda: NOW_US),
            rng=random.Random(1),
            report=self.reported.append,
            places=places,
            has_browsers=has_browsers,
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
        return self.cluster.run(answered(self.application, request))


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
        (
            "ListBackups",
            b"{}",
            {
                "__type": "com.amazon.coral.service#UnknownOperationException",
                "message": "ListBackups is not supported yet by Merganser",
            },
        ),
        ("Nope", b"{}", {"__type": "com.amazon.coral.service#UnknownOperationException"}),
    ],
)
def test_error_has_dynamodbs_type_and_spelling(door: Door, operation: str, body: bytes, answer: object) -> None:
    response = door.send(operation, body)
    assert response.status == 400
    assert orjson.loads(body_of(response)) == answer
    assert not door.reported


@pytest.mark.parametrize(
    "target",
    [None, b"Other.Scan", b"DynamoDB_20120810", b"DynamoDB_20120810.Scan.x", b"", b"DynamoDBStreams_20120810.Scan"],
)
def test_target_that_names_no_operation_is_an_unknown_operation(door: Door, target: bytes | None) -> None:
    response = door.send("ListTables", x_amz_target=target)
    assert response.status == 400
    assert orjson.loads(body_of(response)) == {"__type": "com.amazon.coral.service#UnknownOperationException"}


@pytest.mark.parametrize("operation", sorted(STREAM_OPERATIONS))
def test_operations_of_streams_say_that_there_are_no_records(door: Door, operation: str) -> None:
    response = door.send("ListTables", x_amz_target=f"DynamoDBStreams_20120810.{operation}".encode())
    assert response.status == 400
    assert orjson.loads(body_of(response)) == {
        "__type": "com.amazon.coral.service#UnknownOperationException",
        "message": f"{operation} is not supported yet by Merganser, which keeps no stream records",
    }


@pytest.mark.parametrize("changed", [{"content_type": b"text/plain"}, {"content_type": None}])
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"])
def test_what_is_not_the_protocol_is_not_found(door: Door, method: bytes, changed: dict[str, bytes | None]) -> None:
    response = door.send("ListTables", method=method, **changed)  # type: ignore[arg-type]
    assert (response.status, body_of(response)) == (404, b"<UnknownOperationException/>\n")
    assert headers_of(response)["x-amz-crc32"] == "3552371480"


def test_answer_has_the_content_type_of_its_request(door: Door) -> None:
    response = door.send("ListTables", content_type=b"Application/JSON; charset=utf-8")
    assert response.status == 200
    assert headers_of(response)["content-type"] == "application/json"


@pytest.mark.parametrize("changed", [{}, {"x_amz_target": None}, {"authorization": None}, {"authorization": b"AWS4-"}])
def test_what_is_no_json_is_said_before_what_else_is_wrong(door: Door, changed: dict[str, bytes | None]) -> None:
    response = door.send("ListTables", b'{"a":}', **changed)  # type: ignore[arg-type]
    assert response.status == 400
    assert orjson.loads(body_of(response)) == {"__type": "com.amazon.coral.service#SerializationException"}


def test_a_request_without_body_is_told_who_is_missing_first(door: Door) -> None:
    assert b"#MissingAuthenticationTokenException" in body_of(door.send("ListTables", b"", authorization=None))
    assert b"#SerializationException" in body_of(door.send("ListTables", b"", content_type=None))


def test_browsers_of_any_origin_may_send_anything(door: Door) -> None:
    response = door.send(
        "",
        b"",
        method=b"OPTIONS",
        origin=b"https://example.org",
        access_control_request_headers=b"x-amz-target,authorization",
        access_control_request_method=b"POST",
    )
    headers = headers_of(response)
    assert (response.status, body_of(response)) == (200, b"")
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-headers"] == "x-amz-target,authorization"
    assert headers["access-control-allow-methods"] == "POST"
    assert headers["access-control-max-age"] == "172800"


@pytest.mark.parametrize("operation", ["ListTables", "Nope"])
def test_browsers_are_shown_answers_and_errors(door: Door, operation: str) -> None:
    headers = headers_of(door.send(operation, origin=b"https://example.org"))
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-expose-headers"] == "x-amzn-RequestId,x-amzn-ErrorType,x-amzn-ErrorMessage,Date"
    assert "access-control-allow-origin" not in headers_of(door.send(operation))


def test_no_script_of_another_origin_reads_what_a_door_without_browsers_says(cluster: Cluster) -> None:
    door = Door(cluster, has_browsers=False)
    response = door.send("", b"", method=b"OPTIONS", origin=b"https://example.org")
    assert (response.status, body_of(response)) == (404, b"<UnknownOperationException/>\n")
    for answer in (response, door.send("ListTables", origin=b"https://example.org")):
        assert not [name for name in headers_of(answer) if name.startswith("access-control")]


def put_large(door: Door) -> bytes:
    body = b'{"TableName":"str","Item":{"p":{"S":"a"},"text":{"S":"%b"}}}' % (b"abc" * 1000)
    assert door.send("PutItem", body).status == 200
    return b'{"TableName":"str","Key":{"p":{"S":"a"}}}'


@pytest.mark.parametrize("accepted", [b"gzip", b"deflate, gzip;q=0.5, br", b"GZIP;q=1.0"])
def test_large_answer_is_compressed_for_who_asks_and_has_the_checksum_of_its_bytes(door: Door, accepted: bytes) -> None:
    get = put_large(door)
    plain, packed = door.send("GetItem", get), door.send("GetItem", get, accept_encoding=accepted)
    headers = headers_of(packed)
    assert headers["content-encoding"] == "gzip"
    assert int(headers["x-amz-crc32"]) == zlib.crc32(body_of(packed))
    assert gzip.decompress(body_of(packed)) == body_of(plain)
    assert len(body_of(packed)) < 200


@pytest.mark.parametrize("accepted", [b"identity", b"gzip;q=0", b"gzip; q=0.000", b"br", b""])
def test_answer_is_left_as_it_is_for_who_does_not_ask(door: Door, accepted: bytes) -> None:
    assert "content-encoding" not in headers_of(door.send("GetItem", put_large(door), accept_encoding=accepted))


def test_small_answer_is_not_compressed(door: Door) -> None:
    assert "content-encoding" not in headers_of(door.send("ListTables", accept_encoding=b"gzip"))


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        (b"gzip", gzip.compress),
        (b"X-GZip ", gzip.compress),
        (b"deflate", zlib.compress),
        (b"identity", lambda body: body),
    ],
)
def test_compressed_request_is_read(door: Door, encoding: bytes, packed: Callable[[bytes], bytes]) -> None:
    body = packed(b'{"TableName":"str","Key":{"p":{"S":"a"}}}')
    assert door.send("GetItem", body, content_encoding=encoding).status == 200


SMALL = gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize(
    ("encoding", "body", "told"),
    [
        (b"gzip", b"{}", "the body is not gzip: "),
        (b"gzip", b"", "the body is not gzip: it is cut"),
        (b"gzip", SMALL[:-1], "the body is not gzip: it is cut"),
        (b"gzip", SMALL + SMALL, "the body is not gzip: something follows it"),
        (b"gzip", SMALL[:-5] + b"\0" + SMALL[-4:], "the body is not gzip: "),
        (b"br", b"{}", "content-encoding 'br': send gzip, deflate or identity"),
        (b"gzip, gzip", gzip.compress(SMALL, mtime=0), "content-encoding 'gzip, gzip': send gzip"),
        (b"gzip", gzip.compress(bytes(4 * 1024 * 1024 + 1), mtime=0), "more than 4194304 bytes of body"),
    ],
)
def test_request_that_cannot_be_expanded_is_refused(door: Door, encoding: bytes, body: bytes, told: str) -> None:
    response = door.send("GetItem", body, content_encoding=encoding)
    answer = orjson.loads(body_of(response))
    assert response.status == 400
    assert answer["__type"] == "com.amazon.coral.service#SerializationException"
    assert answer["Message"].startswith(told)


def test_request_without_signature_is_refused(door: Door) -> None:
    response = door.send("ListTables", authorization=None)
    assert response.status == 400
    assert orjson.loads(body_of(response)) == {
        "__type": "com.amazon.coral.service#MissingAuthenticationTokenException",
        "message": "Request is missing Authentication Token",
    }


@pytest.mark.parametrize("operation", ["CreateTable", "DescribeTable", "DeleteTable"])
def test_arns_name_the_region_that_the_request_is_signed_for(door: Door, operation: str) -> None:
    table = {
        "TableName": "things",
        "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    if operation != "CreateTable":
        door.send("CreateTable", orjson.dumps(table))
    body = orjson.dumps(table if operation == "CreateTable" else {"TableName": "things"})
    scope = SIGNATURE.replace(b"us-east-1", b"eu-west-1")
    [described] = orjson.loads(body_of(door.send(operation, body, authorization=scope))).values()
    assert described["TableArn"] == "arn:aws:dynamodb:eu-west-1:000000000000:table/things"


def test_get_is_a_health_check(door: Door) -> None:
    response = door.send("", method=b"GET")
    assert (response.status, body_of(response)) == (200, b"healthy: dynamodb.us-east-1.amazonaws.com ")


def test_header_sets_the_consistency_of_one_request(leaderless: Cluster) -> None:
    body = b'{"TableName":"str","Key":{"p":{"S":"a"}}}'
    Door(leaderless).send("GetItem", body, x_merganser_consistency=b"all")
    Door(leaderless).send("GetItem", body)
    assert leaderless.coordinator.levels == [Consistency.ALL, Consistency.ONE]


def test_unknown_consistency_is_refused_with_the_choices(door: Door) -> None:
    response = door.send("ListTables", x_merganser_consistency=b"SOME")
    assert orjson.loads(body_of(response))["message"] == (
        "x-merganser-consistency is 'SOME': choose one of ONE, TWO, THREE, QUORUM, ALL, ANY, LOCAL_ONE, "
        "LOCAL_QUORUM, EACH_QUORUM, or numbers such as w=2,pw=1,r=2,pr=1"
    )


def test_our_own_bug_is_reported_and_told_to_nobody(door: Door) -> None:
    bug = KeyError("inside")
    door.cluster.fails(lambda key: bug)
    response = door.send("GetItem", b'{"TableName":"str","Key":{"p":{"S":"a"}}}')
    assert response.status == 500
    assert b"inside" not in body_of(response)
    assert door.reported == [bug]


def test_header_takes_numbers_for_writes_and_reads_at_once(leaderless: Cluster) -> None:
    level = b"w=2,pw=1,r=3,pr=2"
    Door(leaderless).send("GetItem", b'{"TableName":"str","Key":{"p":{"S":"a"}}}', x_merganser_consistency=level)
    Door(leaderless).send("PutItem", b'{"TableName":"str","Item":{"p":{"S":"a"}}}', x_merganser_consistency=level)
    assert leaderless.coordinator.levels == [ReadQuorums(r=3, pr=2), WriteQuorums(w=2, pw=1)]


def test_numbers_for_the_other_kind_of_request_leave_the_default(leaderless: Cluster) -> None:
    Door(leaderless).send("GetItem", b'{"TableName":"str","Key":{"p":{"S":"a"}}}', x_merganser_consistency=b"w=2")
    Door(leaderless).send("PutItem", b'{"TableName":"str","Item":{"p":{"S":"a"}}}', x_merganser_consistency=b"r=2")
    assert leaderless.coordinator.levels == [Consistency.ONE, Consistency.QUORUM]


@pytest.mark.parametrize(
    ("operation", "body", "level", "message"),
    [
        ("PutItem", b'{"TableName":"str","Item":{"p":{"S":"a"}}}', b"w=4", "w=4 and the table has 3 replicas"),
        ("GetItem", b'{"TableName":"str","Key":{"p":{"S":"a"}}}', b"r=0", "r=0 asks nobody"),
        ("GetItem", b'{"TableName":"str","Key":{"p":{"S":"a"}}}', b"ANY", "ANY is for writes"),
        ("Scan", b'{"TableName":"str"}', b"ANY", "ANY is for writes"),
        ("ListTables", b"{}", b"w=x", "w is 'x': write a number of nodes"),
    ],
)
def test_levels_that_make_no_sense_are_refused(
    leaderless: Cluster, operation: str, body: bytes, level: bytes, message: str
) -> None:
    response = Door(leaderless).send(operation, body, x_merganser_consistency=level)
    answer = orjson.loads(body_of(response))
    assert response.status == 400
    assert answer["__type"].endswith("ValidationException")
    assert message in answer["message"]
    assert leaderless.coordinator.levels == []


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("PutItem", b'{"TableName":"str","Item":{"p":{"S":"a"}}}'),
        ("GetItem", b'{"TableName":"str","Key":{"p":{"S":"a"}}}'),
        ("Scan", b'{"TableName":"str"}'),
    ],
)
def test_levels_of_a_table_with_leaders_are_refused(door: Door, operation: str, body: bytes) -> None:
    response = door.send(operation, body, x_merganser_consistency=b"QUORUM")
    assert response.status == 400
    assert "with the tag merganser:replication = leaderless" in orjson.loads(body_of(response))["message"]


@pytest.mark.parametrize(("operation", "mebibytes"), [(b"PutItem", 4), (b"Query", 4), (b"BatchWriteItem", 16)])
def test_the_body_of_an_operation_may_be_as_large_as_what_it_can_need(operation: bytes, mebibytes: int) -> None:
    headers = [(b"content-type", b"application/x-amz-json-1.0"), (b"x-amz-target", b"DynamoDB_20120810." + operation)]
    assert body_bound(headers) == mebibytes * 1024 * 1024
    assert body_bound([]) == 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("operation", "told"),
    [
        (b"PutItem", "Item size has exceeded the maximum allowed size"),
        (b"UpdateItem", "Item size to update has exceeded the maximum allowed size"),
    ],
)
def test_item_beyond_the_body_of_a_put_is_told_as_too_large(operation: bytes, told: str) -> None:
    response = too_large([(b"x-amz-target", b"DynamoDB_20120810." + operation)])
    assert response is not None
    assert response.status == 400
    assert orjson.loads(body_of(response)) == {
        "__type": "com.amazon.coral.validate#ValidationException",
        "message": told,
    }
    assert too_large([(b"x-amz-target", b"DynamoDB_20120810.Query")]) is None


def test_the_largest_item_there_can_be_fits_into_the_body_of_a_put() -> None:
    """A list of empty strings is DynamoDB's worst: nine bytes of JSON for each byte of its measure."""
    element = {"S": ""}
    count = 1000
    item = {"p": {"S": "a"}, "l": {"L": [dict(element) for _ in range(count)]}}
    json_bytes = len(orjson.dumps(item["l"]))
    per_measured = json_bytes / normalise(item)
    assert 400 * 1024 * per_measured < body_bound([(b"x-amz-target", b"DynamoDB_20120810.PutItem")])


class Places:
    """One place; who asks while it is taken waits, and is refused if that is over."""

    def __init__(self, *, refuses: str = "") -> None:
        self.refuses = refuses
        """"at once" or "later"."""
        self.entered = self.left = self.waited = 0

    def enter(self) -> Coroutine[Any, Any, None] | None:
        if self.refuses == "at once":
            raise OverloadedError("4 requests are served")
        if self.refuses == "later":
            return self._wait()
        self.entered += 1
        return self._wait() if self.entered % 2 == 0 else None

    def leave(self) -> None:
        self.left += 1

    async def _wait(self) -> None:
        await asyncio.sleep(0)
        if self.refuses:
            raise OverloadedError("4 requests are served")
        self.waited += 1


@pytest.mark.parametrize("refuses", ["at once", "later"])
def test_a_request_without_a_place_is_throttled_before_it_is_looked_at(cluster: Cluster, refuses: str) -> None:
    places = Places(refuses=refuses)
    door = Door(cluster, places)
    response = door.send("PutItem", b"not even JSON", authorization=None)
    assert response.status == 400
    assert orjson.loads(body_of(response)) == {
        "__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException",
        "message": "Too many requests: 4 requests are served",
    }
    assert not door.reported
    assert places.left == 0
    assert door.send("", method=b"GET").status == 200


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_each_request_gives_its_place_back_whatever_comes_of_it(cluster: Cluster, is_elsewhere: bool) -> None:
    places = Places()
    door = Door(cluster, places)
    cluster.leader_based.is_elsewhere = is_elsewhere
    get = b'{"TableName":"str","Key":{"p":{"S":"a"}}}'
    sent: list[tuple[str, bytes, int]] = [
        ("GetItem", get, 200),
        ("GetItem", b"not even JSON", 400),
        ("GetItem", b'{"TableName":"nope","Key":{"p":{"S":"a"}}}', 400),
        ("GetItem", b'{"TableName":"str","Key":{"q":{"S":"a"}}}', 400),
        ("PutItem", b'{"TableName":"str","Item":{"p":{"S":"a"}}}', 200),
        ("Nonesuch", b"{}", 400),
    ]
    for operation, body, status in (*sent, *sent[:1], *sent[1:]):
        assert door.send(operation, body).status == status, operation
        assert door.send(operation, body, accept_encoding=b"gzip").status == status, operation
    assert places.entered == places.left == 4 * len(sent)
    assert places.waited == 2 * len(sent)


def test_replicas_with_too_much_to_do_are_told_as_throttling(door: Door) -> None:
    door.cluster.fails(lambda key: OverloadedError("0 of 2 replicas answered"))
    response = door.send("GetItem", b'{"TableName":"str","Key":{"p":{"S":"a"}}}')
    assert response.status == 400
    assert orjson.loads(body_of(response))["__type"].endswith("#ThrottlingException")


def test_every_retry_mode_of_botocore_takes_the_error_for_throttling() -> None:
    kind = orjson.loads(fault_of(OverloadedError("")).body())["__type"].partition("#")[2]
    assert kind in ThrottledRetryableChecker._THROTTLED_ERROR_CODES  # type: ignore[attr-defined]  # the stubs leave it out
    policies = botocore.session.get_session().get_data("_retry")["definitions"].values()
    legacy = [policy["applies_when"].get("response", {}).get("service_error_code") for policy in policies]
    assert kind in legacy
