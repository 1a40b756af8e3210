"""Damaged registers: a replica asks the leader what belongs in their place, and the leader tells what it knows.

What was damaged may have been acknowledged, by this replica and so few others that they are no majority without it.
So nothing takes its place but what is at least as late::

    damaged at a replica --Settle--> leader: made known --Settled, of epoch e--> e promised --> put, durable

- The leader's register is *known* in its epoch: built on, or later than, all that was acknowledged in earlier epochs.
  In its own epoch every write is its own. So at any moment it is as late as anything this replica has acknowledged up
  to then, in this epoch or an earlier one.
- The answer belongs to a question that was asked *after* the damage was met. From then on this replica has kept and
  acknowledged nothing under that key. A `Replicate` does not put damage right: it may be a late one, of before.
- Had this replica acknowledged something in a later epoch, it would have promised that, and refuses the answer.

At the leader itself a damaged register is a first touch: others tell what they hold, as many as share one with every
majority that this node may have been part of (`core.first_touch`); or what is in flight is put back as it was sent.

Source: docs/internals/healing.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from merganser.model.cluster import Table
from merganser.model.errors import CorruptionError, RefusedError
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import Settle, Settled
from merganser.model.leadership import Epoch, Group
from merganser.net.transport import Traffic
from merganser.service.group_gate import not_leading
from merganser.service.hash_trees import Change, HashTrees
from merganser.service.leader import Leader
from merganser.service.leader_based import LeaderBased
from merganser.service.leadership import Leadership
from merganser.service.partition_gate import MALFORMED, PartitionGate
from merganser.service.promises import Promises
from merganser.service.topology import Topology
from merganser.storage.engine import Engine
from merganser.storage.registers import decode_register

KEYS_MAX = 256
ANSWER_TIMEOUT_S = 10.0  # each key may be a first touch, and that a write


class Settling:
    """Asks leaders about damaged registers, and answers as one; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        engine: Engine,
        promises: Promises,
        trees: HashTrees,
        leadership: Leadership,
        leader: Leader,
        leader_based: LeaderBased,
        gate: PartitionGate,
    ) -> None:
        """Put right what ``engine`` holds."""
        self._topology = topology
        self._engine = engine
        self._promises = promises
        self._trees = trees
        self._leadership = leadership
        self._leader = leader
        self._leader_based = leader_based
        self._gate = gate
        self._loop = asyncio.get_running_loop()

    # A replica

    async def make_right(self, table: Table, partition: PartitionId, wanted: Sequence[bytes]) -> int:
        """Put in place what belongs under these keys, where what is held is damaged; returns how many were replaced.

        Raises:
            MerganserError: no leader could tell, or it leads no more.
        """
        group, map_epoch, asked = Group(table.rule, partition), self._topology.map.epoch, tuple(wanted)

        def question(epoch: Epoch) -> Settle:
            return Settle(map_epoch, table.id, partition, epoch, asked)

        deadline = self._loop.time() + ANSWER_TIMEOUT_S
        answer = cast(
            "Settled",
            await self._leader_based.ask(table, partition, question, deadline=deadline, traffic=Traffic.BULK),
        )
        if len(answer.registers) != len(asked):
            raise CorruptionError(f"the leader of partition {partition} told of {len(answer.registers)} keys")
        epoch = Epoch(*answer.epoch)
        await self._promises.admit(group, epoch)
        self._promises.check(group, epoch)  # from here on it is one turn of the loop
        self._gate.held(map_epoch, table.id, partition)
        changes: list[Change] = []
        for key, register in zip(asked, answer.registers, strict=True):
            decode_register(key, register)
            stored, is_intact = self._own(key)
            if not is_intact:
                changes.append((table.id, key, stored, register))
        if changes:
            self._trees.replace(table.id, partition, changes)
        await self._engine.durable()
        return len(changes)

    def _own(self, key: bytes) -> tuple[bytes | None, bool]:
        """Return what is stored under ``key``, None if the engine cannot read it, and whether it is intact."""
        stored = None
        try:
            stored = self._engine.get(key)
            decode_register(key, stored)
        except CorruptionError:
            return stored, False
        return stored, True

    # The leader

    async def settle(self, sender: NodeId, request: Settle) -> Settled:
        """Make items known, and tell what they are.

        Raises:
            RefusedError: another map, no such table, keys of others, or another node leads.
            UnavailableError: too few replicas told what they hold.
        """
        table = await self._gate.admit_replica(sender, request.map_epoch, request.table, request.partition)
        self._check_keys(table, request)
        group = Group(table.rule, request.partition)
        led = self._leadership.led(group)
        if led is None or not led.is_standing:
            raise not_leading(self._topology.node, group, self._leadership.known(group))
        registers = [await self._leader.known(table, key, led=led) for key in request.keys]
        if not led.is_standing:
            raise not_leading(self._topology.node, group, self._leadership.known(group))
        return Settled(led.epoch, tuple(registers))

    def _check_keys(self, table: Table, request: Settle) -> None:
        if not 1 <= len(request.keys) <= KEYS_MAX:
            raise RefusedError(MALFORMED, f"1 to {KEYS_MAX} keys can be settled at once, not {len(request.keys)}")
        for key in request.keys:
            self._gate.check_key(table, request.partition, key)
