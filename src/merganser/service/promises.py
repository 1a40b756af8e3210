"""What this node has promised: for each group the latest epoch, and to refuse all earlier ones, for ever.

A promise is durable before anyone hears of it. It is made by the first request of a later epoch, whatever it asks.

Invariant: what is promised to a group never falls, over all lives of the node. The groups of both halves of a partition
that is cut (`core.splitting`) have been promised what its group had been, and so has a group that takes over a table
from another (`core.policy_changes`).

Source: design §5; Lamport 2001, "Paxos Made Simple", §2.2 (P1a).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

from merganser.core.policy_changes import Forks
from merganser.core.splitting import halves
from merganser.model.errors import CorruptionError, RefusedError
from merganser.model.leader_messages import NOT_LEADING
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.service.replica import NOT_A_REPLICA
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.values import seal, unseal

_PREFIX = keys.metadata_key("promise|")
_EPOCH = struct.Struct(">QI")


class Promises:
    """The promises of this node; see the module's docstring."""

    def __init__(self, engine: Engine) -> None:
        """Remember what ``engine`` holds.

        Raises:
            CorruptionError: a promise is damaged.
        """
        self._engine = engine
        self._promised: dict[Group, Epoch] = {}
        self._undurable: set[Group] = set()
        self._splits = 0
        """Since the start, and forks: what was of a group before one may be of another after it."""
        self._listeners: list[Callable[[Group, Epoch], None]] = []
        for key, stored in engine.scan(_PREFIX, keys.prefix_end(_PREFIX)):
            self._promised[keys.group_in(_PREFIX, key)] = _epoch_in(key, stored)

    def of(self, group: Group) -> Epoch:
        """Return what is promised, durable or not; NO_EPOCH if nothing is."""
        return self._promised.get(group, NO_EPOCH)

    def when_promised(self, listener: Callable[[Group, Epoch], None]) -> None:
        """Call ``listener`` in the turn of the loop in which a later epoch is promised, before that is durable."""
        self._listeners.append(listener)

    async def admit(self, group: Group, epoch: Epoch) -> None:
        """Return once ``epoch`` is promised, durably; for a request that is of that epoch.

        Raises:
            RefusedError: a later one is.
            StorageFailedError: it is unknown whether it will be remembered.
        """
        self.check(group, epoch)
        if self._promised.get(group) != epoch:
            self.promise(((group, epoch),))
        if group in self._undurable:
            splits = self._splits
            await self.durable()
            if self._splits != splits:
                raise RefusedError(NOT_A_REPLICA, f"partition {group.partition} was cut, or regrouped, meanwhile")
            self.check(group, epoch)

    @property
    def is_durable(self) -> bool:
        """Tell whether all that is promised is durable."""
        return not self._undurable

    def stands(self, group: Group, epoch: Epoch) -> bool:
        """Tell whether just that ``epoch`` is promised, durably."""
        return self._promised.get(group) == epoch and group not in self._undurable

    def check(self, group: Group, epoch: Epoch) -> None:
        """Return if nothing later than ``epoch`` is promised.

        Raises:
            RefusedError: something is.
        """
        promised = self._promised.get(group, NO_EPOCH)
        if promised > epoch:
            raise RefusedError(
                NOT_LEADING,
                f"epoch {promised.number} of node {promised.leader} has begun in partition {group.partition}, "
                f"this is of epoch {epoch.number} of node {epoch.leader}",
                epoch=promised,
            )

    def promise(self, wanted: Iterable[tuple[Group, Epoch]]) -> None:
        """Promise each epoch that is later than what is promised, in one batch; `durable` waits for it.

        Raises:
            StorageFailedError: nothing is promised, or it is unknown whether it will be remembered.
        """
        later = [(group, epoch) for group, epoch in wanted if epoch > self.of(group)]
        if not later:
            return
        batch = Batch()
        for group, epoch in later:
            key = keys.group_key(_PREFIX, group)
            batch.put(key, seal(key, _EPOCH.pack(*epoch)))
        self._engine.commit(batch)
        for group, epoch in later:
            self._promised[group] = epoch
            self._undurable.add(group)
            for listener in self._listeners:
                listener(group, epoch)

    async def durable(self) -> None:
        """Return once all that is promised is durable, what was promised meanwhile included: an answer may tell of it.

        Raises:
            StorageFailedError: it is unknown whether it will be remembered.
        """
        while self._undurable:
            waiting, splits = {group: self._promised[group] for group in self._undurable}, self._splits
            await self._engine.durable()
            if self._splits != splits:
                continue
            for group, epoch in waiting.items():
                if self._promised[group] == epoch:
                    self._undurable.discard(group)

    def fork(self, forks: Forks) -> None:
        """Promise the groups of new rules what was promised to those before them; see `Topology.when_forked`."""
        self.promise(
            (Group(new, group.partition), epoch)
            for group, epoch in list(self._promised.items())
            for new, old in forks
            if group.rule == old
        )
        self._splits += 1

    def split(self, batch: Batch, factor: int) -> Callable[[], None]:
        """Have each part of a partition inherit the promise of its group; see `Topology.when_split`."""
        parts = {Group(g.rule, p): g for g in self._promised for p in halves(g.partition, factor)}
        promised = {part: self._promised[whole] for part, whole in parts.items()}
        undurable = {part for part, whole in parts.items() if whole in self._undurable}
        for group in self._promised:
            batch.delete(keys.group_key(_PREFIX, group))
        for group, epoch in promised.items():
            key = keys.group_key(_PREFIX, group)
            batch.put(key, seal(key, _EPOCH.pack(*epoch)))

        def take() -> None:
            self._promised, self._undurable, self._splits = promised, undurable, self._splits + 1

        return take


def _epoch_in(key: bytes, stored: bytes) -> Epoch:
    try:
        return Epoch(*_EPOCH.unpack(unseal(key, stored)))
    except struct.error:
        raise CorruptionError(f"not a promise: {stored.hex()}") from None
