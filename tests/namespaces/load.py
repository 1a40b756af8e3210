"""boto3 clients at work, each in a thread of its own among the clients' namespace, until they are told to stop."""

from __future__ import annotations

import abc
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

from namespaces.network import Network

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

CLIENTS = 12
CLIENT_TIMEOUT_S = 1.0
"""Shorter than a node's own 10 s, so that outcomes are unknown that the cluster has yet to decide."""
PROGRESS_S = 60.0


def client_of(url: str, level: str | None = None) -> DynamoDBClient:
    """Return a client of one node that never retries; ``level`` goes into the consistency header."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=CLIENT_TIMEOUT_S,
            read_timeout=CLIENT_TIMEOUT_S,
            max_pool_connections=CLIENTS,
        ),
    )
    if level is not None:
        client.meta.events.register("before-sign.dynamodb", _with_level(level))
    return client


def _with_level(level: str) -> Callable[..., None]:
    def add(request: Any, **_: object) -> None:
        request.headers["x-merganser-consistency"] = level

    return add


def create_table(client: DynamoDBClient, name: str, *, is_leaderless: bool = False) -> None:
    """Create a table of items with the key "pk"."""
    client.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=[{"Key": "merganser:replication", "Value": "leaderless" if is_leaderless else "leader"}],
    )


class Load(abc.ABC):
    """Clients from `start` to `stop`; what they do is a subclass's."""

    def __init__(self, network: Network, urls: Sequence[str], *, seed: int, level: str | None = None) -> None:
        """Prepare clients of the nodes at ``urls``; ``seed`` decides what they choose."""
        self._seed = seed
        self._urls = urls
        self._pool = network.threads(CLIENTS)
        self._clients = [client_of(url, level) for url in urls]
        self._is_over = threading.Event()
        self._running: list[Future[None]] = []

    @abc.abstractmethod
    def prepare(self, client: DynamoDBClient) -> None:
        """Create what the clients need."""

    @abc.abstractmethod
    def step(self, rng: random.Random) -> None:
        """Do one thing as a client."""

    @abc.abstractmethod
    def has_progressed(self, began_s: float, count: int) -> bool:
        """Tell whether ``count`` writes that began after ``began_s`` are acknowledged, and as many reads answered."""

    @abc.abstractmethod
    def final_state(self) -> list[str]:
        """Read everything through every node; returns what differs."""

    @abc.abstractmethod
    def violations(self) -> list[str]:
        """Return what the history holds that cannot be."""

    @abc.abstractmethod
    def summary(self) -> str:
        """Return the counts in a line."""

    def start(self) -> None:
        """Create what is needed and begin."""
        self._pool.submit(self.prepare, self._clients[0]).result()
        self._running = [self._pool.submit(self._client, random.Random(f"{self._seed}-{i}")) for i in range(CLIENTS)]
        self.wait_for_progress()

    def wait_for_progress(self, count: int = 40) -> None:
        """Return once so many more writes that begin from now on are acknowledged, and as many reads answered."""
        began_s = time.monotonic()
        while not self.has_progressed(began_s, count):
            assert time.monotonic() < began_s + PROGRESS_S, f"clients made no progress ({self.summary()})"
            for running in self._running:
                if running.done():
                    running.result()
            time.sleep(0.02)  # between two looks

    def stop(self) -> None:
        """End the clients."""
        self._is_over.set()
        for running in self._running:
            running.result()

    def close(self) -> None:
        """End the clients and their threads, whatever happened to them."""
        self._is_over.set()
        self._pool.shutdown()
        for client in self._clients:
            client.close()

    def rest(self) -> None:
        """Pause after a failure: a node that is gone answers faster than one that works."""
        self._is_over.wait(0.005)

    def _client(self, rng: random.Random) -> None:
        while not self._is_over.is_set():
            self.step(rng)
