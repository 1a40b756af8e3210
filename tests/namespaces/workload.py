"""boto3 clients that write unique values to a few keys, read them, and write down what they saw and when."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from merganser.sim.checkers.registers import Get, Outcome, Put, violations
from namespaces.network import Network

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TABLE = "registers"
CLIENTS = 12
KEYS = tuple(f"key-{i}" for i in range(8))
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


class Workload:
    """Clients in threads of their own, from `start` to `stop`; each request goes to a node drawn at random."""

    def __init__(
        self,
        network: Network,
        urls: Sequence[str],
        *,
        seed: int = 0,
        is_leaderless: bool = False,
        level: str | None = None,
        payload_bytes: int = 0,
    ) -> None:
        """Prepare clients of the nodes at ``urls``.

        Args:
            network: where the clients live.
            urls: of all nodes.
            seed: of the choice of nodes and keys.
            is_leaderless: the table is.
            level: of every request to a leaderless table; none: QUORUM, as DynamoDB clients ask for it.
            payload_bytes: to fill each item with, besides its value.
        """
        self.puts: list[Put] = []
        self.gets: list[Get] = []
        self.failed_reads = 0
        self._seed = seed
        self._is_leaderless = is_leaderless
        self._urls = urls
        self._pool = network.threads(CLIENTS)
        self._clients = [client_of(url, level) for url in urls]
        self._payload = {"payload": {"S": "x" * payload_bytes}} if payload_bytes else {}
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self._running: list[Future[None]] = []

    def start(self) -> None:
        """Create the table and begin."""
        self._pool.submit(self._create_table).result()
        self._running = [self._pool.submit(self._client, random.Random(f"{self._seed}-{i}")) for i in range(CLIENTS)]
        self.wait_for_progress()

    def wait_for_progress(self, count: int = 40) -> None:
        """Return once so many more writes that begin from now on are acknowledged, and as many reads answered."""
        began_s, puts, gets = time.monotonic(), len(self.puts), len(self.gets)

        def is_enough() -> bool:
            acked = sum(p.outcome is Outcome.ACKNOWLEDGED and p.began_s > began_s for p in self.puts[puts:])
            return acked >= count and sum(g.began_s > began_s for g in self.gets[gets:]) >= count

        while not is_enough():
            assert time.monotonic() < began_s + PROGRESS_S, "clients made no progress"
            self._raise_what_ended()
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

    def final_state(self) -> list[str]:
        """Read every key consistently through every node, then, if there are levels, at ALL and ONE.

        Returns:
            what differs.
        """
        levels = (None, "ALL", "ONE") if self._is_leaderless else (None,)
        return [told for level in levels for told in self.differences(self._urls, level)]

    def differences(self, urls: Sequence[str], level: str | None = None) -> list[str]:
        """Read every key through the nodes at ``urls``; returns what differs.

        What is read without a level, consistently, becomes part of the history.
        """
        told = []
        clients = [client_of(url, level) for url in urls]
        for key in KEYS:
            found = [self._pool.submit(self._read, client, key).result() for client in clients]
            if level is None:
                self.gets += found
            values = [get.value for get in found]
            if len(set(values)) > 1:
                told.append(f"{key!r} at {level or 'its best'} is {values}, node by node")
        for client in clients:
            client.close()
        return told

    def violations(self) -> list[str]:
        """Return what the history holds that cannot be."""
        return violations(self.puts, self.gets)

    def summary(self) -> str:
        """Return the counts in a line."""
        outcomes = [sum(put.outcome is outcome for put in self.puts) for outcome in Outcome]
        writes = ", ".join(f"{count} {outcome.value}" for count, outcome in zip(outcomes, Outcome, strict=True))
        return f"writes: {writes}; reads: {len(self.gets)} answered, {self.failed_reads} not"

    # The clients.

    def _create_table(self) -> None:
        client = self._clients[0]
        client.create_table(
            TableName=TABLE,
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            Tags=[{"Key": "merganser:replication", "Value": "leaderless" if self._is_leaderless else "leader"}],
        )

    def _client(self, rng: random.Random) -> None:
        while not self._is_over.is_set():
            client, key = rng.choice(self._clients), rng.choice(KEYS)
            if rng.random() < 0.5:
                self._write(client, key)
            else:
                try:
                    self.gets.append(self._read(client, key))
                except (BotoCoreError, ClientError):
                    self.failed_reads += 1
                    self._is_over.wait(0.005)

    def _write(self, client: DynamoDBClient, key: str) -> None:
        value = f"value-{next(self._numbers)}"
        began_s = time.monotonic()
        try:
            client.put_item(TableName=TABLE, Item={"pk": {"S": key}, "value": {"S": value}, **self._payload})
            outcome = Outcome.ACKNOWLEDGED
        except ClientError as error:  # 503 promises that nothing was written
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            outcome = Outcome.REFUSED if status == 503 else Outcome.UNKNOWN
        except BotoCoreError:
            outcome = Outcome.UNKNOWN
        self.puts.append(Put(key, value, began_s, time.monotonic(), outcome))
        if outcome is not Outcome.ACKNOWLEDGED:
            self._is_over.wait(0.005)  # a node that is gone answers faster than one that works

    def _read(self, client: DynamoDBClient, key: str) -> Get:
        began_s = time.monotonic()
        item = client.get_item(TableName=TABLE, Key={"pk": {"S": key}}, ConsistentRead=True).get("Item")
        return Get(key, item["value"]["S"] if item else None, began_s, time.monotonic())

    def _raise_what_ended(self) -> None:
        for running in self._running:
            if running.done():
                running.result()
