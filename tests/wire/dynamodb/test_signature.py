"""Signatures made by botocore's own signer."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given
from hypothesis import strategies as st

from merganser.net.http import Request
from merganser.wire.dynamodb.errors import ApiError
from merganser.wire.dynamodb.signature import Verifier, _is_usual, _usual_claim, region_of

SIGNED_AT_S = 1_790_000_000
SIGNED_AT = "20260921T141320Z"
KEYS = {"AKID": "secret/with+signs"}


def signed(
    *,
    secret: str = KEYS["AKID"],
    access_key: str = "AKID",
    path: str = "/",
    body: bytes = b"{}",
    service: str = "dynamodb",
    **headers: str,
) -> Request:
    request = AWSRequest(
        method="POST",
        url="http://localhost:8000" + path,
        data=body,
        headers={
            "X-Amz-Target": "DynamoDB_20120810.ListTables",
            "Content-Type": "application/x-amz-json-1.0",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
    )
    request.context["timestamp"] = SIGNED_AT
    # what add_auth does, but for reading the clock
    signer: Any = SigV4Auth(Credentials(access_key, secret), service, "eu-west-1")
    signer._modify_request_before_signing(request)
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(to_sign, request))
    sent = [(name.lower().encode(), value.encode()) for name, value in request.headers.items()]
    return Request(b"POST", path.encode(), [(b"host", b"localhost:8000"), *sent], body, "127.0.0.1:5")


def verifier(keys: dict[str, str] | None = None, *, now_s: int = SIGNED_AT_S, is_open: bool = False) -> Verifier:
    return Verifier(KEYS if keys is None else keys, wall_us=lambda: now_s * 1_000_000, is_open=is_open)


def verify(request: Request, **options: Any) -> None:
    verifier(**options).verify(request, dict(reversed(request.headers)))


def refusal(request: Request, **options: Any) -> tuple[str, str]:
    with pytest.raises(ApiError) as caught:
        verify(request, **options)
    return caught.value.kind.partition("#")[2], caught.value.message


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"path": "/?b=2&a=1&c=%20x~y"},
        {"path": "/some/path"},
        {"body": "é".encode() * 1000},
        {"X_Custom": "  two   spaces  "},
    ],
)
def test_signature_of_botocore_is_right(options: Any) -> None:
    verify(signed(**options))


@pytest.mark.parametrize(
    ("scope", "kind", "message"),
    [
        (
            b"20260920/eu-west-1/dynamodb/aws4_request",
            "InvalidSignatureException",
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            "'20260920' != '20260921', from '20260921T141320Z'.",
        ),
        (
            b"20260920/eu-west-1/s3/aws3",
            "InvalidSignatureException",
            "Credential should be scoped to correct service: 'dynamodb'. "
            "Credential should be scoped with a valid terminator: 'aws4_request', not 'aws3'. "
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            "'20260920' != '20260921', from '20260921T141320Z'.",
        ),
        (
            b"20260921/aws4_request",
            "IncompleteSignatureException",
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
            "got 'AKID/20260921/aws4_request'",
        ),
    ],
)
def test_scope_of_another_day_or_shape_is_refused(scope: bytes, kind: str, message: str) -> None:
    request = signed()
    name, header = request.headers.pop()
    assert name == b"authorization"
    request.headers.append((name, header.replace(b"20260921/eu-west-1/dynamodb/aws4_request", scope)))
    assert refusal(request) == (kind, message)


def test_another_algorithm_is_refused() -> None:
    request = signed()
    name, header = request.headers.pop()
    request.headers.append((name, header.replace(b"SHA256", b"SHA1")))
    assert refusal(request) == (
        "IncompleteSignatureException",
        "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA1' (only AWS4-HMAC-SHA256 for now). ",
    )


def test_fields_may_be_in_any_order_between_spaces() -> None:
    request = signed()
    name, header = request.headers.pop()
    algorithm, *fields = header.replace(b",", b"").split(b" ")
    request.headers.append((name, b" ".join([algorithm, *reversed(fields)])))
    verify(request)


def test_a_header_that_comes_twice_is_signed_as_one() -> None:
    request = signed(X_Custom="a,b")
    position = next(i for i, (name, _) in enumerate(request.headers) if name == b"x-custom")
    request.headers[position : position + 1] = [(b"x-custom", b"a"), (b"x-custom", b" b")]
    verify(request)


@pytest.mark.parametrize("age_s", [-899, 0, 899])
def test_signature_may_be_15_minutes_off(age_s: int) -> None:
    verify(signed(), now_s=SIGNED_AT_S + age_s)


def test_wrong_secret_is_refused() -> None:
    kind, message = refusal(signed(secret="other"))
    assert kind == "InvalidSignatureException"
    assert message.startswith("The request signature we calculated does not match the signature you provided.")


@pytest.mark.parametrize("change", ["body", "target", "path"])
def test_changed_request_is_refused(change: str) -> None:
    request = signed()
    if change == "body":
        request.body = b"{ }"
    elif change == "path":
        request.path = b"/?x=1"
    else:
        request.headers = [(n, b"DynamoDB_20120810.Scan" if n == b"x-amz-target" else v) for n, v in request.headers]
    assert refusal(request)[0] == "InvalidSignatureException"


def test_unknown_access_key_is_refused() -> None:
    assert refusal(signed(access_key="OTHER")) == (
        "UnrecognizedClientException",
        "The security token included in the request is invalid.",
    )


@pytest.mark.parametrize(
    ("age_s", "message"),
    [
        (
            901,
            "Signature expired: 20260921T141320Z is now earlier than 20260921T141321Z (20260921T142821Z - 15 min.)",
        ),
        (
            -901,
            "Signature not yet current: 20260921T141320Z is still later than 20260921T141319Z "
            "(20260921T135819Z + 15 min.)",
        ),
    ],
)
def test_signature_out_of_time_is_refused(age_s: int, message: str) -> None:
    assert refusal(signed(), now_s=SIGNED_AT_S + age_s) == ("InvalidSignatureException", message)


@pytest.mark.parametrize("header", [None, b"Bearer abc"])
@pytest.mark.parametrize("keys", [{}, KEYS])
def test_request_without_signature_is_refused(header: bytes | None, keys: dict[str, str]) -> None:
    request = signed()
    request.headers = [(b"authorization", header)] if header else []
    assert refusal(request, keys=keys) == (
        "MissingAuthenticationTokenException",
        "Request is missing Authentication Token",
    )


def test_incomplete_signature_names_what_is_missing() -> None:
    request = signed()
    request.headers = [(b"authorization", b"AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request")]
    assert refusal(request) == (
        "IncompleteSignatureException",
        "Authorization header requires 'Signature' parameter. "
        "Authorization header requires 'SignedHeaders' parameter. "
        "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
        "Authorization=AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request",
    )


@pytest.mark.parametrize(
    ("header", "shown"), [(b"host", "'Host' or ':authority'"), (b"x-amz-target", "'X-Amz-Target'")]
)
def test_signature_must_cover_the_host_and_the_operation(header: bytes, shown: str) -> None:
    request = signed()
    request.headers = [
        (name, value.replace(header, b"x-other") if name == b"authorization" else value)
        for name, value in request.headers
    ]
    message = f"{shown} must be a 'SignedHeader' in the AWS Authorization."
    assert refusal(request) == ("InvalidSignatureException", message)


@pytest.mark.parametrize("date", [b"20261321T141320Z", b"yesterday", b"Mon, 21 Sep 2026 14:13:20 GMT"])
def test_date_that_is_none_is_refused(date: bytes) -> None:
    request = signed()
    request.headers = [(name, date if name == b"x-amz-date" else value) for name, value in request.headers]
    kind, _ = refusal(request)
    assert kind in ("IncompleteSignatureException", "InvalidSignatureException")


def test_without_credentials_any_signature_will_do() -> None:
    verify(signed(secret="whatever", access_key="anyone"), keys={}, now_s=0)


def test_open_door_looks_at_nothing() -> None:
    request = signed()
    request.headers = []
    verify(request, is_open=True)


def test_signature_for_another_service_is_refused() -> None:
    kind, message = refusal(signed(service="s3"))
    assert kind == "InvalidSignatureException"
    assert message.startswith("Credential should be scoped to correct service: 'dynamodb'")


def presigned(*, secret: str = KEYS["AKID"], expires_s: int = 60) -> Request:
    request = AWSRequest(
        method="POST",
        url="http://localhost:8000/?x=%C3%A9",
        headers={"X-Amz-Target": "DynamoDB_20120810.ListTables"},
    )
    request.context["timestamp"] = SIGNED_AT
    signer: Any = SigV4QueryAuth(Credentials("AKID", secret), "dynamodb", "eu-west-1", expires=expires_s)
    signer._modify_request_before_signing(request)
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(to_sign, request))
    path = str(request.url).removeprefix("http://localhost:8000")
    headers = [(b"host", b"localhost:8000"), (b"x-amz-target", b"DynamoDB_20120810.ListTables")]
    return Request(b"POST", path.encode(), headers, b"", "127.0.0.1:5")


def test_signature_may_be_in_the_query_string() -> None:
    verify(presigned(), now_s=SIGNED_AT_S + 60)


def test_wrong_signature_in_the_query_string_is_refused() -> None:
    assert refusal(presigned(secret="other"))[0] == "InvalidSignatureException"


def test_signature_in_the_query_string_expires_when_it_says() -> None:
    assert refusal(presigned(), now_s=SIGNED_AT_S + 61) == (
        "InvalidSignatureException",
        "Signature expired: 20260921T141320Z is now earlier than 20260921T141321Z (20260921T141421Z - 1 min.)",
    )


def test_signature_in_both_places_is_refused() -> None:
    request = signed()
    request.path = b"/?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    assert refusal(request, keys={}) == (
        "InvalidSignatureException",
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
    )


def test_incomplete_query_string_names_what_is_missing() -> None:
    request = presigned()
    request.path = b"/?X-Amz-Algorithm=&X-Amz-Date=20260921T141320Z"
    assert refusal(request, keys={}) == (
        "IncompleteSignatureException",
        "AWS query-string parameters must include 'X-Amz-Algorithm'. "
        "AWS query-string parameters must include 'X-Amz-Credential'. "
        "AWS query-string parameters must include 'X-Amz-Signature'. "
        "AWS query-string parameters must include 'X-Amz-SignedHeaders'. "
        "Re-examine the query-string parameters.",
    )


def test_bytes_that_are_no_text_in_the_query_string_are_signed_like_any() -> None:
    request = signed()
    request.path = b"/?\xff=%FF"
    assert refusal(request)[0] == "InvalidSignatureException"


@pytest.mark.parametrize(
    ("authorization", "region"),
    [
        (None, None),
        (b"Basic abc", None),
        (b"AWS4-HMAC-SHA256 Credential=AKID/20260921, SignedHeaders=host, Signature=x", None),
        (
            b'AWS4-HMAC-SHA256 Credential=a/20260921/No"Region/dynamodb/aws4_request, SignedHeaders=host, Signature=x',
            None,
        ),
        (
            b"AWS4-HMAC-SHA256 Credential=a/20260921/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=x",
            "eu-west-1",
        ),
    ],
)
def test_region_is_that_of_the_scope_if_there_is_one(authorization: bytes | None, region: str | None) -> None:
    headers = {
        b"x-amz-date": SIGNED_AT.encode(),
        **({} if authorization is None else {b"authorization": authorization}),
    }
    request = Request(b"POST", b"/", list(headers.items()), b"{}", "127.0.0.1:5")
    assert region_of(request, headers) == region


pieces = st.sampled_from(
    (
        b"AWS4-HMAC-SHA256",
        b" ",
        b"Credential=",
        b"a/b",
        b", ",
        b",",
        b"SignedHeaders=",
        b"host;date",
        b"Signature=",
        b"0f",
    )
)
USUAL = b"AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0f"


@given(st.lists(pieces, max_size=12).map(b"".join) | st.builds(bytes.replace, st.just(USUAL), pieces, pieces))
@example(USUAL)
@example(USUAL + b",")
@example(USUAL.replace(b"a/b", b""))
@example(USUAL.replace(b"host", b""))
@example(USUAL.replace(b"0f", b""))
def test_what_is_let_in_at_a_glance_is_what_the_expression_reads(said: bytes) -> None:
    assert _is_usual(said) is (_usual_claim(said, b"20260921T141320Z") is not None)


LONG = USUAL.replace(b"0f", b"0f" * 32)


@given(st.builds(bytes.replace, st.just(LONG), pieces, pieces))
@example(LONG[:-1] + b",")
@example(LONG[:-1] + b" ")
@example(LONG[:-1])
@example(LONG + b"0")
@example(LONG.replace(b"a/b", b""))
def test_what_another_claim_began_like_is_let_in_as_if_it_was_the_first(said: bytes) -> None:
    def is_let_in(verifier: Verifier) -> bool:
        headers = {b"authorization": said, b"x-amz-date": b"20260921T141320Z"}
        try:
            verifier.verify(Request(b"POST", b"/", list(headers.items()), b"{}", "127.0.0.1:5"), headers)
        except ApiError:
            return False
        return True

    knowing = Verifier({}, wall_us=lambda: 0)
    first = {b"authorization": LONG, b"x-amz-date": b"20260921T141320Z"}
    knowing.verify(Request(b"POST", b"/", list(first.items()), b"{}", "127.0.0.1:5"), first)
    assert is_let_in(knowing) is is_let_in(Verifier({}, wall_us=lambda: 0))
