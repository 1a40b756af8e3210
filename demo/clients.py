"""boto3 clients for a cluster: what an application would write."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import boto3
from botocore.awsrequest import AWSRequest
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

READ_TIMEOUT_S = 1.0
"""Some 25 times what the slowest hundredth takes; a node that is cut off would keep a client waiting for 10 s."""
ASIDE_S = 2.0


def client_of(endpoints: Sequence[str]) -> DynamoDBClient:
    """Return an ordinary boto3 client whose every attempt, first or retried, goes to the next endpoint.

    The retries are the SDK's own; the hooks only spread them, as a load balancer would.
    """
    client = boto3.client(
        "dynamodb",
        endpoint_url=endpoints[0],
        region_name="us-east-1",
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
        config=Config(
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=READ_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
        ),
    )
    balancer = Balancer([urlsplit(endpoint).netloc for endpoint in endpoints])
    client.meta.events.register("before-sign.dynamodb", balancer.use_next)
    client.meta.events.register("needs-retry.dynamodb", balancer.note_failure)
    return client


class Balancer:
    """Sends each attempt to the next host, and sets one that failed aside for `ASIDE_S`."""

    def __init__(self, hosts: Sequence[str]) -> None:
        """Begin with the first of ``hosts``, host:port each."""
        self._hosts = itertools.cycle(hosts)
        self._count = len(hosts)
        self._aside_until = dict.fromkeys(hosts, 0.0)
        self._current = hosts[0]

    def use_next(self, request: AWSRequest, **_: object) -> None:
        """Point ``request`` at the next host that did well."""
        now_s = time.monotonic()
        upcoming = [next(self._hosts) for _ in range(self._count)]
        self._current = next((host for host in upcoming if self._aside_until[host] <= now_s), upcoming[0])
        while next(self._hosts) != self._current:  # the one after it is next
            pass
        request.url = urlunsplit(urlsplit(str(request.url))._replace(netloc=self._current))

    def note_failure(
        self, response: tuple[object, object] | None, caught_exception: Exception | None, **_: object
    ) -> None:
        """Set the host of this attempt aside if it answered with an error of its own, or not at all."""
        status = getattr(response[0], "status_code", 500) if response is not None else 500
        if caught_exception is not None or status >= 500:
            self._aside_until[self._current] = time.monotonic() + ASIDE_S
