"""DynamoDB requests as bytes, signed as an SDK signs them (AWS Signature Version 4)."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

import msgspec

_CONTENT_TYPE = "application/x-amz-json-1.0"
_SIGNED = "content-type;host;x-amz-date;x-amz-target"


class Credentials(msgspec.Struct, frozen=True):
    """Who signs."""

    access_key: str = "bench"
    secret: str = "bench"
    region: str = "us-east-1"


def credentials_of(environment: Mapping[str, str]) -> Credentials:
    """Return the credentials that AWS's own tools would find in ``environment``, or some that sign."""
    access_key = environment.get("AWS_ACCESS_KEY_ID")
    secret = environment.get("AWS_SECRET_ACCESS_KEY")
    return Credentials(access_key, secret) if access_key and secret else Credentials()


class Signer:
    """Builds signed requests for one endpoint; the day's key is derived once."""

    def __init__(self, host: str, credentials: Credentials) -> None:
        """Sign for ``host`` (host:port as it stands in the URL)."""
        self._host = host
        self._credentials = credentials
        self._day = ""
        self._key = b""
        self._second = 0
        self._stamp = ""

    def request(self, operation: str, body: bytes) -> bytes:
        """Return the whole HTTP request for ``operation`` (``GetItem``, …)."""
        stamp = self._now()
        target = f"DynamoDB_20120810.{operation}"
        canonical = (
            f"POST\n/\n\ncontent-type:{_CONTENT_TYPE}\nhost:{self._host}\nx-amz-date:{stamp}\n"
            f"x-amz-target:{target}\n\n{_SIGNED}\n{hashlib.sha256(body).hexdigest()}"
        )
        scope = f"{self._day}/{self._credentials.region}/dynamodb/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key, to_sign.encode(), "sha256").hex()
        return (
            f"POST / HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: {_CONTENT_TYPE}\r\nX-Amz-Date: {stamp}\r\n"
            f"X-Amz-Target: {target}\r\nContent-Length: {len(body)}\r\n"
            f"Authorization: AWS4-HMAC-SHA256 Credential={self._credentials.access_key}/{scope}, "
            f"SignedHeaders={_SIGNED}, Signature={signature}\r\n\r\n"
        ).encode() + body

    def _now(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            if self._stamp[:8] != self._day:
                self._day = self._stamp[:8]
                key = f"AWS4{self._credentials.secret}".encode()
                for part in (self._day, self._credentials.region, "dynamodb", "aws4_request"):
                    key = hmac.digest(key, part.encode(), "sha256")
                self._key = key
        return self._stamp
