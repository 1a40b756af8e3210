"""Which generation of each leader's messages this node takes: none from before tombstones were dropped here.

Kept durably, in an order that never forgets a generation and remembers what was dropped with it: batches reach the
disk in the order in which they are committed.

Source: docs/internals/tombstones.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from merganser.core.policy_changes import Forks
from merganser.core.splitting import halves
from merganser.model.errors import CorruptionError, RefusedError
from merganser.model.leader_messages import STALE_GENERATION
from merganser.model.leadership import NO_EPOCH, Epoch, Group
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.values import seal, unseal

_PREFIX = keys.metadata_key("generation|")
_GENERATION = struct.Struct(">QIQ")

Generation = tuple[Epoch, int]
"""Compares epoch first."""

NO_GENERATION: Generation = (NO_EPOCH, 0)


class Generations:
    """The generations of this node; see the module's docstring."""

    def __init__(self, engine: Engine) -> None:
        """Remember what ``engine`` holds.

        Raises:
            CorruptionError: a record is damaged.
        """
        self._engine = engine
        self._kept: dict[Group, Generation] = {}
        for key, stored in engine.scan(_PREFIX, keys.prefix_end(_PREFIX)):
            self._kept[keys.group_in(_PREFIX, key)] = _generation_in(key, stored)

    def of(self, group: Group) -> Generation:
        """Return the latest that is known of a group."""
        return self._kept.get(group, NO_GENERATION)

    def check(self, group: Group, epoch: Epoch, generation: int) -> None:
        """Return if a message of that generation may still be taken.

        Raises:
            RefusedError: a later one has begun.
        """
        kept = self._kept.get(group)
        if kept is not None and kept > (epoch, generation):
            raise RefusedError(
                STALE_GENERATION, f"generation {kept[1]} has begun, this is of generation {generation}", epoch=kept[0]
            )

    def begin(self, group: Group, generation: Generation) -> None:
        """Take nothing earlier any more; what is dropped for it is committed after this.

        Raises:
            StorageFailedError: it did not begin, or it is unknown whether it will be remembered.
        """
        if generation > self.of(group):
            (number, leader), raised = generation
            key = keys.group_key(_PREFIX, group)
            self._engine.commit(Batch().put(key, seal(key, _GENERATION.pack(number, leader, raised))))
            self._kept[group] = Epoch(number, leader), raised

    def fork(self, forks: Forks) -> None:
        """Have the groups of new rules inherit the generations of those before them; see `Topology.when_forked`."""
        for group, kept in list(self._kept.items()):
            for new, old in forks:
                if group.rule == old:
                    self.begin(Group(new, group.partition), kept)

    def split(self, batch: Batch, factor: int) -> Callable[[], None]:
        """Have each part of a partition inherit the generation of its group; see `Topology.when_split`."""
        kept = {Group(g.rule, p): kept for g, kept in self._kept.items() for p in halves(g.partition, factor)}
        for group in self._kept:
            batch.delete(keys.group_key(_PREFIX, group))
        for group, ((number, leader), raised) in kept.items():
            key = keys.group_key(_PREFIX, group)
            batch.put(key, seal(key, _GENERATION.pack(number, leader, raised)))

        def take() -> None:
            self._kept = kept

        return take


def _generation_in(key: bytes, stored: bytes) -> Generation:
    try:
        number, leader, raised = _GENERATION.unpack(unseal(key, stored))
    except struct.error:
        raise CorruptionError(f"not a generation: {stored.hex()}") from None
    return Epoch(number, leader), raised
