"""What walks of horizons are made of: nodes, writes of clients, and the attempts to do them; see `horizon_walk`."""

from __future__ import annotations

from collections.abc import Iterator

from merganser.core import rows
from merganser.core.horizon import NEWCOMER, Standing
from merganser.model.ids import NodeId
from merganser.model.row import Mutation, Row
from merganser.model.timestamp import Timestamp

SECOND = 1_000_000
CELL = b"v"
KEYS = (b"k", b"l", b"m")
LAG_S = 40
MARGIN_S = 2  # far less than the clocks lag: safety must not rest on them

Process = Iterator[None]


class Node:
    """What a node has on disk, and what it only remembers."""

    def __init__(self, name: NodeId, vow: int) -> None:
        self.name = name
        self.rows: dict[bytes, Row] = {}
        self.hints: dict[tuple[NodeId, bytes], Row] = {}
        self.standing: Standing = NEWCOMER
        self.vow = vow
        self.adopting_us = 0

    @property
    def floor_us(self) -> int:
        return max(self.standing.horizon_us, self.adopting_us)

    def set(self, key: bytes, row: Row | None) -> None:
        if row is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = row


class Op:
    """A client's write, until it is acknowledged."""

    def __init__(self, key: bytes, mutation: Mutation, level: str, writer: int) -> None:
        self.key = key
        self.mutation = mutation
        self.level = level
        self.writer = writer
        self.is_over = False


class Attempt:
    """One stamping of an op."""

    def __init__(self, op: Op, timestamp: Timestamp) -> None:
        self.op = op
        self.timestamp = timestamp
        self.row = rows.stamp(op.mutation, timestamp)
        self.acked: set[NodeId] = set()
