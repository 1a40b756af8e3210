"""AWS Signature Version 4, in the Authorization header.

Three ways to run: with credentials, a signature must be right; without any configured, a well-formed
signature of anyone is accepted and only its absence is refused (clients always send one); with
``is_open`` nothing is looked at. The signing key of a day is derived once per credential and scope.

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
SERVICE_NAME: Final = "dynamodb"
ALGORITHM: Final = "AWS4-HMAC-SHA256"

_MISSING = "Request is missing Authentication Token"
_INVALID_TOKEN = "The security token included in the request is invalid."
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_SPACES = re.compile(rb" +")


class Claim(NamedTuple):
    """What an Authorization header says."""

    access_key: str
    scope: str
    """date/region/service/aws4_request"""
    signed_headers: str
    """Names in lower case, in order, with semicolons."""
    signature: str


class Verifier:
    """Decides whether a request may come in."""

    def __init__(self, credentials: Mapping[str, str], *, wall_us: Callable[[], int], is_open: bool = False) -> None:
        """Take whom to let in.

        Args:
            credentials: secret keys by access key; empty lets everyone in who signs.
            wall_us: microseconds since 1970.
            is_open: let everyone in.
        """
        self._credentials = dict(credentials)
        self._wall_us = wall_us
        self._is_open = is_open

    def verify(self, request: Request) -> None:
        """Check the signature of a request.

        Raises:
            ApiError: missing, ill-formed, of an unknown key, too old, too new, or wrong.
        """
        if self._is_open:
            return
        header = request.header(b"authorization")
        if header is None or not header.strip().startswith(b"AWS4-"):
            raise _error("MissingAuthenticationToken", _MISSING)
        date = _date(request)
        claim = _claim(header.decode("latin-1").strip(), date)
        if not self._credentials:
            return
        secret = self._credentials.get(claim.access_key)
        if secret is None:
            raise _error("UnrecognizedClient", _INVALID_TOKEN)
        _check_coverage(claim)
        self._check_scope(claim, date)
        expected = _signature(secret, claim, date, request)
        if not hmac.compare_digest(expected, claim.signature.encode("latin-1")):
            raise _error("InvalidSignature", _MISMATCH)

    def _check_scope(self, claim: Claim, date: str) -> None:
        day, *_, terminator = claim.scope.split("/")
        if claim.scope.count("/") != 3 or terminator != "aws4_request" or not date.startswith(day):
            raise _error(
                "InvalidSignature",
                f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
                f"'{day}' != '{date[:8]}', from '{date}'.",
            )
        service = claim.scope.split("/")[2]
        if service != SERVICE_NAME:
            raise _error("InvalidSignature", f"Credential should be scoped to correct service: '{SERVICE_NAME}'. ")
        now_s = self._wall_us() // 1_000_000
        signed_s = _seconds(date)
        if signed_s < now_s - SKEW_MAX_S:
            earliest = _compact(now_s - SKEW_MAX_S)
            raise _error(
                "InvalidSignature",
                f"Signature expired: {date} is now earlier than {earliest} ({_compact(now_s)} - 15 min.)",
            )
        if signed_s > now_s + SKEW_MAX_S:
            latest = _compact(now_s + SKEW_MAX_S)
            raise _error(
                "InvalidSignature",
                f"Signature not yet current: {date} is still later than {latest} ({_compact(now_s)} + 15 min.)",
            )


def _check_coverage(claim: Claim) -> None:
    """Check that nobody on the way could have changed where the request goes and what it asks for."""
    covered = claim.signed_headers.split(";")
    for name, shown in (("host", "'Host' or ':authority'"), ("x-amz-target", "'X-Amz-Target'")):
        if name not in covered:
            raise _error("InvalidSignature", f"{shown} must be a 'SignedHeader' in the AWS Authorization.")


def _error(kind: str, message: str) -> ApiError:
    return ApiError(f"{SERVICE}{kind}Exception", message)


def _date(request: Request) -> str:
    value = request.header(b"x-amz-date") or request.header(b"date") or b""
    return value.decode("latin-1").strip()


def _claim(header: str, date: str) -> Claim:
    """Return what an Authorization header says.

    Raises:
        ApiError: a part is missing.
    """
    algorithm, _, rest = header.partition(" ")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    missing = [
        f"Authorization header requires '{name}' parameter."
        for name in ("Credential", "Signature", "SignedHeaders")
        if not fields.get(name)
    ]
    if not date:
        missing.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if missing:
        raise _error("IncompleteSignature", f"{' '.join(missing)} Authorization={algorithm}")
    access_key, _, scope = fields["Credential"].partition("/")
    return Claim(access_key, scope, fields["SignedHeaders"], fields["Signature"])


def _signature(secret: str, claim: Claim, date: str, request: Request) -> bytes:
    canonical = _canonical_request(claim.signed_headers, request)
    to_sign = f"{ALGORITHM}\n{date}\n{claim.scope}\n{hashlib.sha256(canonical).hexdigest()}"
    key = _signing_key(secret, *claim.scope.split("/")[:3])
    return hmac.new(key, to_sign.encode("latin-1"), hashlib.sha256).hexdigest().encode()


@functools.lru_cache(maxsize=1024)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode("latin-1"), "sha256")
    return key


def _canonical_request(signed_headers: str, request: Request) -> bytes:
    path, _, query = request.path.partition(b"?")
    lines = [request.method, _canonical_path(path), _canonical_query(query)]
    for name in signed_headers.encode("latin-1").split(b";"):
        values = [_SPACES.sub(b" ", value.strip()) for header, value in request.headers if header == name]
        lines.append(name + b":" + b",".join(values))
    lines += [b"", signed_headers.encode("latin-1"), hashlib.sha256(request.body).hexdigest().encode()]
    return b"\n".join(lines)


def _canonical_path(path: bytes) -> bytes:
    return urllib.parse.quote(path, safe="/~").encode() if path else b"/"


def _canonical_query(query: bytes) -> bytes:
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
    encoded = sorted((urllib.parse.quote(name, safe="~"), urllib.parse.quote(value, safe="~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded).encode()


def _seconds(date: str) -> int:
    """Return the seconds since 1970 of a compact ISO 8601 date.

    Raises:
        ApiError: not one.
    """
    try:
        signed_at = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ")
    except ValueError:
        raise _error(
            "IncompleteSignature",
            f"Date must be in ISO-8601 'basic format'. Got '{date}'. See http://en.wikipedia.org/wiki/ISO_8601",
        ) from None
    return int(signed_at.replace(tzinfo=datetime.UTC).timestamp())


def _compact(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
