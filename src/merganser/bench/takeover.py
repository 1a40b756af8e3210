"""How long clients wait when a leader is gone: three real nodes on this machine, one of them killed, stopped or closed.

    python -m merganser.bench.takeover --rounds 20

At the moment of the fault, and from then on, writes of as many keys go to the two other nodes, each of them until it is
answered. Most of these keys are led by others and answered at once; the slowest tells when all that the victim led was
taken over.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import orjson

from merganser.bench.connection import Asking
from merganser.bench.requests import Signer, credentials_of
from merganser.bench.setup import create_table
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode

TABLE = "takeover"
KEYS = 96
PARTITIONS = 256
TIMEOUT_S = 60.0
RETRY_S = 0.01


class Round(msgspec.Struct, frozen=True):
    """What one fault came to, in seconds from then on."""

    slowest_s: float
    """Until the last write was answered."""
    retries: int
    """Writes that were answered with an error; as clients are told to, each was sent again."""


FAULTS: dict[str, Callable[[LocalNode], None]] = {
    "killed": lambda node: _send(node, signal.SIGKILL),
    "stopped": lambda node: _send(node, signal.SIGSTOP),
    "closed": lambda node: _send(node, signal.SIGTERM),
}


def _send(node: LocalNode, number: signal.Signals) -> None:
    assert node.pid is not None
    os.kill(node.pid, number)


def take_over(cluster: LocalCluster, name: str, victim: LocalNode) -> Round:
    """Hit ``victim`` while ``cluster`` is well, and bring all back to where it was.

    Raises:
        ConfigurationError: writes are not answered, or leaders not spread, within a minute.
    """
    wait_until_spread(cluster)
    others = [node for node in cluster.nodes if node is not victim]
    try:
        return asyncio.run(_measured(others, lambda: FAULTS[name](victim)))
    finally:
        if name == "stopped":
            victim.kill(signal.SIGCONT)
        else:
            victim.stop()
            victim.start()
            victim.wait_until_ready()


def wait_until_spread(cluster: LocalCluster) -> None:
    """Return once each node leads as many groups as any other, or one less.

    Raises:
        ConfigurationError: that takes too long.
    """
    deadline = time.monotonic() + TIMEOUT_S
    least = PARTITIONS // len(cluster.nodes)
    while True:
        led = [_leadership(node)["groups_led"] for node in cluster.nodes]
        if sum(led) == PARTITIONS and min(led) >= least:
            return
        if time.monotonic() > deadline:
            raise ConfigurationError(f"leaders are not spread evenly after {TIMEOUT_S:g} s: {led}")
        time.sleep(0.05)


def _leadership(node: LocalNode) -> dict[str, int]:
    with urlopen(f"http://{node.addresses['admin']}/status", timeout=TIMEOUT_S) as answer:
        found: dict[str, Any] = orjson.loads(answer.read())
    leadership: dict[str, int] = found["leadership"]
    return leadership


async def _measured(others: list[LocalNode], fault: Callable[[], None]) -> Round:
    writers = [await _Writer.to(others[i % len(others)], f"key-{i}") for i in range(KEYS)]
    began = time.perf_counter()
    fault()
    ended = await asyncio.gather(*(writer.write() for writer in writers))
    for writer in writers:
        writer.close()
    return Round(max(ended) - began, sum(writer.retries for writer in writers))


class _Writer:
    """Writes one item, again and again until it is answered."""

    def __init__(self, signer: Signer, connection: Asking, key: str) -> None:
        self.retries = 0
        self._signer = signer
        self._connection = connection
        self._body = orjson.dumps({"TableName": TABLE, "Item": {"pk": {"S": key}, "value": {"S": "x" * 100}}})

    @classmethod
    async def to(cls, node: LocalNode, key: str) -> _Writer:
        """Return a writer that is connected to ``node``."""
        host, port = node.addresses["dynamodb"].rsplit(":", 1)
        connection = await Asking(host, int(port)).open()
        return cls(Signer(node.addresses["dynamodb"], credentials_of(os.environ)), connection, key)

    async def write(self) -> float:
        """Write; returns when that was acknowledged."""
        deadline = time.perf_counter() + TIMEOUT_S
        while True:
            status, answer = await self._connection.ask(self._signer.request("PutItem", self._body))
            if status == 200:
                return time.perf_counter()
            if time.perf_counter() > deadline:
                raise ConfigurationError(f"a write is not done after {TIMEOUT_S:g} s: {answer.decode()}")
            self.retries += 1
            await asyncio.sleep(RETRY_S)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="faults of each kind")
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as directory, LocalCluster(Path(directory) / "cluster") as cluster:
        create_table(cluster.nodes[0].dynamodb_url, TABLE, replication="leader")
        for name in arguments.faults:
            rounds = [take_over(cluster, name, rng.choice(cluster.nodes)) for _ in range(arguments.rounds)]
            slowest = sorted(found.slowest_s for found in rounds)
            print(  # noqa: T201
                f"{name}: all keys written after {slowest[len(slowest) // 2]:.2f} s (median), {slowest[-1]:.2f} s "
                f"(most) of {len(rounds)}; {sum(found.retries for found in rounds)} of {KEYS * len(rounds)} writes "
                "were answered with an error first"
            )


if __name__ == "__main__":
    main()
