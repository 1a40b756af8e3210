"""AWS Signature Version 4, in the Authorization header or in the query string.

Three ways to run: with credentials, a signature must be right; without any configured, a complete signature of anyone
is accepted and only its absence is refused (clients always send one); with ``is_open`` nothing is looked at.

What is wrong is found in DynamoDB's order: what is missing, the date, the headers that must be signed, the algorithm,
the scope, whose key it is, and the signature itself.

The signing key of a day is derived once per credential and scope; the headers that SDKs send are read by one
expression.

Source: AWS General Reference, "Signature Version 4 signing process"; errors in DynamoDB's words.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import hmac
import re
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from merganser.net.http import Request
from merganser.wire.dynamodb.errors import SERVICE, ApiError

SKEW_MAX_S: Final = 15 * 60
EXPIRES_MAX_S: Final = 7 * 24 * 60 * 60
SERVICE_NAME: Final = b"dynamodb"
TERMINATOR: Final = b"aws4_request"
ALGORITHM: Final = b"AWS4-HMAC-SHA256"

_MISSING = "Request is missing Authentication Token"
_INVALID_TOKEN = "The security token included in the request is invalid."
_BOTH = "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_SPACES = re.compile(rb" +")
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))  # RFC 2104
_USUAL = re.compile(
    rb"AWS4-HMAC-SHA256 Credential=([^, ]+), SignedHeaders=([^, ]+), Signature=([^, ]+)",
).fullmatch
_CREDENTIAL, _SIGNED_HEADERS, _SIGNATURE = b"AWS4-HMAC-SHA256 Credential=", b", SignedHeaders=", b", Signature="
_SIGNATURE_CHARACTERS: Final = 64
_USUAL_MAX: Final = 256
_USUAL_BYTES_MAX: Final = 512
_IS_REGION = re.compile(rb"[a-z0-9-]{1,64}").fullmatch
_IN_QUERY = b"X-Amz-Algorithm"
_QUERY_MEMBERS = (_IN_QUERY, b"X-Amz-Credential", b"X-Amz-Signature", b"X-Amz-SignedHeaders", b"X-Amz-Date")

Headers = Mapping[bytes, bytes]


class Claim(NamedTuple):
    """What a request says of who sent it."""

    algorithm: bytes
    credential: bytes
    """access key/day/region/service/aws4_request"""
    signed_headers: bytes
    """Names in lower case, in order, with semicolons."""
    signature: bytes
    date: bytes
    age_max_s: int = SKEW_MAX_S


class Verifier:
    """Decides whether a request may come in."""

    def __init__(self, credentials: Mapping[str, str], *, wall_us: Callable[[], int], is_open: bool = False) -> None:
        """Take whom to let in.

        Args:
            credentials: secret keys by access key; empty lets everyone in who signs.
            wall_us: microseconds since 1970.
            is_open: let everyone in.
        """
        self._secrets = {access_key.encode(): secret for access_key, secret in credentials.items()}
        self._wall_us = wall_us
        self._is_open = is_open
        self._usual: set[bytes] = set()
        """What usual claims have said before their signatures: some hundred of them, forgotten all at once."""

    def verify(self, request: Request, headers: Headers) -> None:
        """Check the signature of a request.

        Args:
            request: whole.
            headers: its headers by name.

        Raises:
            ApiError: missing, ill-formed, of an unknown key, too old, too new, or wrong.
        """
        if self._is_open or (not self._secrets and self._is_usual(request, headers)):
            return
        claim = _claim_of(request, headers)
        if not self._secrets:
            return
        self._check_age(claim)
        _check_coverage(claim.signed_headers)
        access_key, day, region = _scope_of(claim)
        secret = self._secrets.get(access_key)
        if secret is None:
            raise _error("UnrecognizedClient", _INVALID_TOKEN)
        to_sign = _string_to_sign(request, headers, claim, b"%b/%b/dynamodb/aws4_request" % (day, region))
        inner, outer = (state.copy() for state in _keyed(secret, day, region))
        inner.update(to_sign)
        outer.update(inner.digest())
        if not hmac.compare_digest(outer.hexdigest().encode(), claim.signature):
            raise _error("InvalidSignature", _MISMATCH)

    def _is_usual(self, request: Request, headers: Headers) -> bool:
        """Tell whether a request says who sent it as SDKs do, whoever that is."""
        said = headers.get(b"authorization")
        if said is None or len(request.path) != 1 or not headers.get(b"x-amz-date"):
            return False
        before = said[:-_SIGNATURE_CHARACTERS]
        if before in self._usual and said[-_SIGNATURE_CHARACTERS:].isalnum():
            return True
        if not _is_usual(said):
            return False
        if before.endswith(_SIGNATURE) and len(before) <= _USUAL_BYTES_MAX:
            if len(self._usual) >= _USUAL_MAX:
                self._usual.clear()
            self._usual.add(before)
        return True

    def _check_age(self, claim: Claim) -> None:
        now_s = self._wall_us() // 1_000_000
        signed_s = _seconds(claim.date)
        if now_s - claim.age_max_s <= signed_s <= now_s + SKEW_MAX_S:
            return
        date = claim.date.decode()
        if signed_s < now_s:
            earliest = _compact(now_s - claim.age_max_s)
            raise _error(
                "InvalidSignature",
                f"Signature expired: {date} is now earlier than {earliest} "
                f"({_compact(now_s)} - {claim.age_max_s // 60} min.)",
            )
        latest = _compact(now_s + SKEW_MAX_S)
        raise _error(
            "InvalidSignature",
            f"Signature not yet current: {date} is still later than {latest} ({_compact(now_s)} + 15 min.)",
        )


def region_of(request: Request, headers: Headers) -> str | None:
    """Return the region that a request is signed for; None if it says none."""
    try:
        parts = _claim_of(request, headers).credential.split(b"/")
    except ApiError:
        return None
    return parts[2].decode() if len(parts) > 2 and _IS_REGION(parts[2]) else None


def _is_usual(said: bytes) -> bool:
    """Tell whether an Authorization header is as SDKs write it."""
    if not said.startswith(_CREDENTIAL):
        return False
    signed_headers, signature = said.find(_SIGNED_HEADERS), said.find(_SIGNATURE)
    return (
        len(_CREDENTIAL) < signed_headers  # none of the three is empty, nor has a comma or a space in it
        and signed_headers + len(_SIGNED_HEADERS) < signature < len(said) - len(_SIGNATURE)
        and said.count(b",") == 2
        and said.count(b" ") == 3
    )


def _claim_of(request: Request, headers: Headers) -> Claim:
    """Return what a request says of who sent it.

    Raises:
        ApiError: it says nothing, or not all of it.
    """
    header = headers.get(b"authorization")
    if len(request.path) > 1 and _IN_QUERY in request.path:
        query = _query_of(request.path)
        if _IN_QUERY in query:
            if header is not None:
                raise _error("InvalidSignature", _BOTH)
            return _claim_in_query(query)
    if header is None:
        raise _error("MissingAuthenticationToken", _MISSING)
    date = headers.get(b"x-amz-date") or headers.get(b"date") or b""
    return _usual_claim(header, date) or _claim_in_header(header.strip(), date)


def _usual_claim(header: bytes, date: bytes) -> Claim | None:
    """Return the claim of a header as SDKs write it, None of any other."""
    usual = _USUAL(header)
    if usual is None or not date:
        return None
    credential, signed_headers, signature = usual.groups()
    return Claim(ALGORITHM, credential, signed_headers, signature, date)


def _claim_in_header(header: bytes, date: bytes) -> Claim:
    if not header.startswith(b"AWS4-"):
        raise _error("MissingAuthenticationToken", _MISSING)
    algorithm, _, rest = header.partition(b" ")
    fields = dict(part.partition(b"=")[::2] for part in rest.replace(b",", b" ").split())
    missing = [
        f"Authorization header requires '{name}' parameter. "
        for name in ("Credential", "Signature", "SignedHeaders")
        if not fields.get(name.encode())
    ]
    if not date:
        missing.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ")
    if missing:
        raise _error("IncompleteSignature", f"{''.join(missing)}Authorization={header.decode('latin-1')}")
    return Claim(algorithm, fields[b"Credential"], fields[b"SignedHeaders"], fields[b"Signature"], date)


def _claim_in_query(query: Mapping[bytes, bytes]) -> Claim:
    missing = [
        f"AWS query-string parameters must include '{name.decode()}'. "
        for name in _QUERY_MEMBERS
        if not query.get(name)
    ]
    if missing:
        raise _error("IncompleteSignature", f"{''.join(missing)}Re-examine the query-string parameters.")
    algorithm, credential, signature, signed_headers, date = (query[name] for name in _QUERY_MEMBERS)
    expires = query.get(b"X-Amz-Expires", b"")
    age_max_s = min(int(expires), EXPIRES_MAX_S) if re.fullmatch(rb"[0-9]{1,9}", expires) else SKEW_MAX_S
    return Claim(algorithm, credential, signed_headers, signature, date, age_max_s)


@functools.lru_cache(maxsize=256)  # clients sign the same headers in each request
def _check_coverage(signed_headers: bytes) -> None:
    """Check that nobody on the way could have changed where the request goes and what it asks for."""
    covered = signed_headers.lower().split(b";")
    for name, shown in ((b"host", "'Host' or ':authority'"), (b"x-amz-target", "'X-Amz-Target'")):
        if name not in covered:
            raise _error("InvalidSignature", f"{shown} must be a 'SignedHeader' in the AWS Authorization.")


def _scope_of(claim: Claim) -> tuple[bytes, bytes, bytes]:
    """Return the access key, the day and the region of a claim.

    Raises:
        ApiError: it is made for something else.
    """
    if claim.algorithm != ALGORITHM:
        raise _error(
            "IncompleteSignature",
            f"Unsupported AWS 'algorithm': '{claim.algorithm.decode('latin-1')}' (only AWS4-HMAC-SHA256 for now). ",
        )
    parts = claim.credential.rstrip(b"/").split(b"/")
    if len(parts) != 5:
        raise _error(
            "IncompleteSignature",
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
            f"got '{claim.credential.decode('latin-1')}'",
        )
    access_key, day, region, service, terminator = parts
    if service != SERVICE_NAME or terminator != TERMINATOR or day != claim.date[:8]:
        raise _scope_error(claim.date, day, service, terminator)
    return access_key, day, region


def _scope_error(date: bytes, day: bytes, service: bytes, terminator: bytes) -> ApiError:
    wrong: list[str] = []
    if service != SERVICE_NAME:
        wrong.append("Credential should be scoped to correct service: 'dynamodb'. ")
    if terminator != TERMINATOR:
        term = terminator.decode("latin-1")
        wrong.append(f"Credential should be scoped with a valid terminator: 'aws4_request', not '{term}'. ")
    if day != date[:8]:
        wrong.append(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{day.decode('latin-1')}' != '{date[:8].decode()}', from '{date.decode()}'."
        )
    return _error("InvalidSignature", "".join(wrong))


def _error(kind: str, message: str) -> ApiError:
    return ApiError(f"{SERVICE}{kind}Exception", message)


def _string_to_sign(request: Request, headers: Headers, claim: Claim, scope: bytes) -> bytes:
    canonical = hashlib.sha256(_canonical_request(request, headers, claim.signed_headers)).hexdigest()
    return b"%b\n%b\n%b\n%b" % (ALGORITHM, claim.date, scope, canonical.encode())


@functools.lru_cache(maxsize=1024)
def _keyed(secret: str, day: bytes, region: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Return both hashes of an HMAC with the signing key of a day, begun.

    To go on with copies of them takes a third of the time of `hmac.digest`.
    """
    key = f"AWS4{secret}".encode()
    for part in (day, region, SERVICE_NAME, TERMINATOR):
        key = hmac.digest(key, part, "sha256")
    block = key.ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(block.translate(_INNER)), hashlib.sha256(block.translate(_OUTER))


def _canonical_request(request: Request, headers: Headers, signed_headers: bytes) -> bytes:
    path, _, query = request.path.partition(b"?")
    names = signed_headers.split(b";")
    block = b"\n".join([name + b":" + headers.get(name, b"").strip() for name in names])
    if len(headers) != len(request.headers) or b"  " in block:
        block = b"\n".join([name + b":" + _value_of(request, name) for name in names])
    body = hashlib.sha256(request.body).hexdigest().encode()
    return b"%b\n%b\n%b\n%b\n\n%b\n%b" % (
        request.method,
        _canonical_path(path),
        _canonical_query(query),
        block,
        signed_headers,
        body,
    )


def _value_of(request: Request, name: bytes) -> bytes:
    """Return all values of a header, each with single spaces."""
    return b",".join([_SPACES.sub(b" ", value.strip()) for header, value in request.headers if header == name])


def _canonical_path(path: bytes) -> bytes:
    return path if path == b"/" else urllib.parse.quote(path, safe="/~").encode() if path else b"/"


def _canonical_query(query: bytes) -> bytes:
    if not query:
        return b""
    encoded = sorted(
        (urllib.parse.quote(name, safe="~"), urllib.parse.quote(value, safe="~"))
        for name, value in _pairs(query)
        if name != b"X-Amz-Signature"
    )
    return "&".join(f"{name}={value}" for name, value in encoded).encode()


def _query_of(path: bytes) -> dict[bytes, bytes]:
    return dict(_pairs(path.partition(b"?")[2]))


def _pairs(query: bytes) -> list[tuple[bytes, bytes]]:
    """Return names and values byte for byte, whatever text they are."""
    pairs = urllib.parse.parse_qsl(query.decode("latin-1"), keep_blank_values=True, encoding="latin-1")
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


@functools.lru_cache(maxsize=1024)  # dates change once a second
def _seconds(date: bytes) -> int:
    """Return the seconds since 1970 of a compact ISO 8601 date.

    Raises:
        ApiError: not one.
    """
    text = date.decode("latin-1")
    try:
        signed_at = datetime.datetime.strptime(text, "%Y%m%dT%H%M%SZ")
    except ValueError:
        raise _error(
            "IncompleteSignature",
            f"Date must be in ISO-8601 'basic format'. Got '{text}'. See http://en.wikipedia.org/wiki/ISO_8601",
        ) from None
    return int(signed_at.replace(tzinfo=datetime.UTC).timestamp())


def _compact(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
