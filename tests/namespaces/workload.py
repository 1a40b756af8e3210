"""boto3 clients that write unique values to a few keys, read them, and write down what they saw and when."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from merganser.sim.checkers.registers import Get, Outcome, Put, violations
from namespaces.load import Load, client_of, create_table
from namespaces.network import Network

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

TABLE = "registers"
KEYS = tuple(f"key-{i}" for i in range(8))


class Workload(Load):
    """Each request goes to a node drawn at random."""

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
        super().__init__(network, urls, seed=seed, level=level)
        self.puts: list[Put] = []
        self.gets: list[Get] = []
        self.failed_reads = 0
        self._is_leaderless = is_leaderless
        self._payload = {"payload": {"S": "x" * payload_bytes}} if payload_bytes else {}
        self._numbers = itertools.count()

    def prepare(self, client: DynamoDBClient) -> None:
        """Create the table."""
        create_table(client, TABLE, is_leaderless=self._is_leaderless)

    def has_progressed(self, began_s: float, count: int) -> bool:
        """As `Load.has_progressed`."""
        acked = sum(put.outcome is Outcome.ACKNOWLEDGED and put.began_s > began_s for put in reversed(self.puts))
        return acked >= count and sum(get.began_s > began_s for get in reversed(self.gets)) >= count

    def step(self, rng: random.Random) -> None:
        """Write or read."""
        client, key = rng.choice(self._clients), rng.choice(KEYS)
        if rng.random() < 0.5:
            self._write(client, key)
            return
        try:
            self.gets.append(self._read(client, key))
        except (BotoCoreError, ClientError):
            self.failed_reads += 1
            self.rest()

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
            self.rest()

    def _read(self, client: DynamoDBClient, key: str) -> Get:
        began_s = time.monotonic()
        item = client.get_item(TableName=TABLE, Key={"pk": {"S": key}}, ConsistentRead=True).get("Item")
        return Get(key, item["value"]["S"] if item else None, began_s, time.monotonic())
