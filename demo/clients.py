"""boto3 clients for a cluster: what an application would write."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

import boto3
from botocore.awsrequest import AWSRequest
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


def client_of(endpoints: Sequence[str]) -> DynamoDBClient:
    """Return an ordinary boto3 client whose every attempt, first or retried, goes to the next endpoint.

    The retries are the SDK's own; the hook only spreads them, as a load balancer would.
    """
    client = boto3.client(
        "dynamodb",
        endpoint_url=endpoints[0],
        region_name="us-east-1",
        aws_access_key_id="demo",
        aws_secret_access_key="demo",
        config=Config(retries={"mode": "standard", "max_attempts": 5}, connect_timeout=2, read_timeout=10),
    )
    hosts = itertools.cycle([urlsplit(endpoint).netloc for endpoint in endpoints])

    def use_next_host(request: AWSRequest, **_: object) -> None:
        request.url = urlunsplit(urlsplit(str(request.url))._replace(netloc=next(hosts)))

    client.meta.events.register("before-sign.dynamodb", use_next_host)
    return client
