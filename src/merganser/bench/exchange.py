"""What it costs two replicas to compare a partition: time, bytes on the wire, keys that travelled.

    python -m merganser.bench.exchange --rows 1000000 --differing 1000

Two nodes with RocksDB in this process, TCP between them, one partition that both hold. Their rows are written past
the coordinator, equal on both but for as many as are to differ. Measured are counting a tree anew, comparing equal
replicas, comparing those that differ, comparing once more, and what keeping the tree adds to a write.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

import msgspec

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.errors import InvariantError
from merganser.model.ids import PartitionId, TableId
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.node.local_cluster import free_ports
from merganser.node.node import Node, wall_us
from merganser.node.settings import Settings
from merganser.service.hash_trees import Change
from merganser.service.member import Member
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.values import encode_row

CELL = b"value"
BATCH_ROWS = 1000
TIMEOUT_S = 600.0
UPKEEP_ROWS = 20_000
UPKEEP_ROUNDS = 5
UPKEEP_BATCH_ROWS = 20  # a few at a time, as requests bring them
THE_PARTITION = PartitionId(0)


class Measured(msgspec.Struct, frozen=True):
    """One measurement."""

    name: str
    seconds: float
    cpu_seconds: float
    """Of both nodes together."""
    wire_bytes: int = 0
    """Messages of both directions, without the 4 bytes of their lengths and what TCP adds."""
    listed: int = 0
    """Keys that the peer named."""
    met: int = 0
    rows: int = 0
    """How many writes the seconds are of; 0: they are of one comparison."""


async def compare_costs(directory: Path, *, rows: int, differing: int, value_bytes: int) -> list[Measured]:
    """Fill two nodes under ``directory`` and measure."""
    nodes = await _started(directory)
    try:
        one, other = (_member(node) for node in nodes)
        table = await _table(one, other)
        began_us = wall_us()
        written = [_key(table.id, number) for number in range(rows)]
        row = Row((Cell(CELL, Timestamp(began_us, 1), bytes(value_bytes)),))
        for member in one, other:
            await _write(member, table.id, written, row)
        await _count(other, table)
        measured = [await _timed("count a tree", _count(one, table))]
        measured.append(await _timed("compare, all equal", _compare(one, other, table)))
        changed = random.Random(1).sample(written, differing)
        newer = Row((Cell(CELL, Timestamp(began_us + 1, 1), bytes(value_bytes)),))
        await _write(one, table.id, changed[::2], newer)
        await _write(other, table.id, changed[1::2], newer)
        measured.append(await _timed(f"compare, {differing} differ", _compare(one, other, table)))
        measured.append(await _timed("compare once more", _compare(one, other, table)))
        measured.append(await _upkeep(one, table.id, written[:UPKEEP_ROWS], value_bytes))
        return measured
    finally:
        for node in nodes:
            await node.close()


async def _started(directory: Path) -> list[Node]:
    ports = free_ports("127.0.0.1", 2)
    seeds = tuple(f"127.0.0.1:{port}" for port in ports)
    nodes = [
        Node(
            Settings(
                data=str(directory / f"node-{port}"),
                peer_port=port,
                dynamodb_port=0,
                admin_port=0,
                seed=seeds,
                partitions=2,
                repair_interval_s=1e9,
            )
        )
        for port in ports
    ]
    await asyncio.gather(*(node.start() for node in nodes))
    return nodes


async def _table(one: Member, other: Member) -> Table:
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    table = await one.catalog.create_table(
        wire="bench", name="exchange", n=2, definition=b"", unique_id="exchange", deadline=deadline
    )
    await other.catalog.news.catch_up(one.topology.node)
    return table


async def _write(member: Member, table: TableId, wanted: list[bytes], row: Row) -> None:
    for first in range(0, len(wanted), BATCH_ROWS):
        changes: list[Change] = [
            (table, key, member.engine.get(key), encode_row(key, row)) for key in wanted[first : first + BATCH_ROWS]
        ]
        member.trees.write(changes)
        await member.engine.durable()


async def _count(member: Member, table: Table) -> Measured:
    member.trees.forget(table.id, THE_PARTITION)
    await member.trees.ready(table, THE_PARTITION, deadline=asyncio.get_running_loop().time() + TIMEOUT_S)
    return Measured("", 0.0, 0.0)


async def _compare(one: Member, other: Member, table: Table) -> Measured:
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    compared = await one.anti_entropy.compare(table, THE_PARTITION, other.topology.node, deadline=deadline)
    if compared.problem is not None:
        raise InvariantError(compared.problem)
    return Measured(
        "",
        0.0,
        0.0,
        wire_bytes=compared.sent_bytes + compared.received_bytes,
        listed=compared.listed,
        met=compared.met_here + compared.met_there,
    )


async def _upkeep(member: Member, table: TableId, wanted: list[bytes], value_bytes: int) -> Measured:
    """Return what rewriting rows takes beyond a commit of them, least of some rounds: keeping the hash tree."""
    least = [float("inf")] * 2
    for number in range(UPKEEP_ROUNDS):
        row = Row((Cell(CELL, Timestamp(wall_us(), 1 + number), bytes(value_bytes)),))
        spent = [0.0, 0.0]
        for first in range(0, len(wanted), UPKEEP_BATCH_ROWS):
            after = {key: encode_row(key, row) for key in wanted[first : first + UPKEEP_BATCH_ROWS]}
            changes: list[Change] = [(table, key, member.engine.get(key), stored) for key, stored in after.items()]
            began = time.thread_time()
            member.trees.write(changes)
            kept = time.thread_time()
            batch = Batch()
            for key, stored in after.items():
                batch.put(key, stored)
            member.engine.commit(batch)
            spent[0] += kept - began
            spent[1] += time.thread_time() - kept
        least = [min(before, now) for before, now in zip(least, spent, strict=True)]
        await member.engine.durable()
    seconds = max(0.0, least[0] - least[1])
    return Measured(f"hash tree, {len(wanted)} writes", seconds, seconds, rows=len(wanted))


async def _timed(name: str, work: Awaitable[Measured]) -> Measured:
    began_s, cpu_s = time.perf_counter(), time.process_time()
    found = await work
    seconds, cpu_seconds = time.perf_counter() - began_s, time.process_time() - cpu_s
    return msgspec.structs.replace(found, name=name, seconds=seconds, cpu_seconds=cpu_seconds)


def _key(table: TableId, number: int) -> bytes:
    """Return a key of the first of two partitions: its token is below 0."""
    name = b"user#%010d" % number
    token = token_of(name)
    return keys.row_key(table, token if token < 0 else type(token)(~token), name)


def _member(node: Node) -> Member:
    assert node.member is not None
    return node.member


def told(measured: list[Measured]) -> str:
    """Return a table, a line for each measurement."""
    lines = [f"{'':24}{'seconds':>9}{'CPU':>9}{'bytes':>12}{'listed':>9}{'met':>7}"]
    lines += [
        f"{one.name:24}{one.seconds:9.3f}{one.cpu_seconds:9.3f}{one.wire_bytes:12,}{one.listed:9,}{one.met:7,}"
        for one in measured
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--differing", type=int, default=1000)
    parser.add_argument("--value-bytes", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="merganser-exchange-") as directory:
        measured = asyncio.run(
            compare_costs(Path(directory), rows=given.rows, differing=given.differing, value_bytes=given.value_bytes)
        )
    sys.stdout.write(told(measured))


if __name__ == "__main__":
    main()
