"""Real node processes, real clients: everything that is started here is stopped at the end of its test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config

from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

sys.path.insert(0, str(Path(__file__).parents[2]))  # where the demo is

WAIT_S = 90.0


@pytest.fixture(scope="session")
def connect() -> Iterator[Callable[..., DynamoDBClient]]:
    """Return boto3 clients that do not retry, so that a test sees what happened."""
    clients: list[DynamoDBClient] = []

    def new_client(
        endpoint: str, *, access_key: str = "test", secret: str = "test", is_signed: bool = True
    ) -> DynamoDBClient:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=WAIT_S,
            signature_version=None if is_signed else UNSIGNED,
        )
        client = boto3.client(
            "dynamodb",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=access_key,
            aws_secret_access_key=secret,
            config=config,
        )
        clients.append(client)
        return client

    yield new_client
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait until a condition holds; fails after a deadline."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)  # between two looks, not for the thing to happen

    return wait


@pytest.fixture(scope="session")
def command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the merganser command to its end, in a process of its own, on 80 columns."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "merganser.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "COLUMNS": "80"},
        )

    return run


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three nodes of this test alone."""
    with LocalCluster(tmp_path / "cluster", zones=("zone-1", "zone-2", "zone-3")) as running:
        yield running


@pytest.fixture(scope="session")
def make_table() -> Callable[..., str]:
    """Create a table and return its name; ``is_leaderless``: with the tag that makes it so."""
    numbers = iter(range(10_000))

    def make(client: DynamoDBClient, *, is_leaderless: bool = False) -> str:
        name = f"table-{next(numbers)}"
        client.create_table(
            TableName=name,
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            Tags=[{"Key": "merganser:replication", "Value": "leaderless"}] if is_leaderless else [],
        )
        return name

    return make


@pytest.fixture(scope="session")
def read_back() -> Callable[[DynamoDBClient, str], dict[str, Any]]:
    """Return every item of a table, values by key, as a consistent scan finds them."""

    def scan(client: DynamoDBClient, table: str) -> dict[str, Any]:
        pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        return {item["pk"]["S"]: item["value"]["S"] for page in pages for item in page["Items"]}

    return scan


@pytest.fixture(scope="session")
def events_of() -> Callable[[Path], list[dict[str, Any]]]:
    """Return what a node has logged; fails on a line that is no event."""

    def events(log: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in log.read_text().splitlines()]

    return events
