"""Repair one partition when an operator asks: look at every row here, heal, and compare with each other replica.

One pass over the peers gathers; whoever was compared before a later one brought something is compared again, so that
all are equal in the end, if all could be compared. Peers look at their own rows when they are asked themselves
(`is_scrub_only`): what rots unread on a peer leaves its hash tree as it was.

A partition of a leader-based table is compared by its leader, whoever that is (`service.led_repair`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from merganser.model.cluster import Table
from merganser.model.ids import NodeId, PartitionId
from merganser.service.anti_entropy import AntiEntropy, Comparison
from merganser.service.damage import Damage, Wound
from merganser.service.healing import Healing
from merganser.service.scrubber import Scrubber
from merganser.service.topology import Topology

CompareLed = Callable[..., Awaitable[dict[NodeId, Comparison]]]

_TOO_MUCH = "more is damaged than can wait to be healed: look again later"


class Repaired(msgspec.Struct, frozen=True):
    """What came of repairing one partition."""

    rows: int
    """Looked at here."""
    damaged: int
    """Rows and stretches that were damaged here."""
    healed: int
    """How many of them are well now."""
    leaves_wrong: int
    problems: tuple[str, ...]
    """Why some are not."""
    peers: dict[NodeId, Comparison]
    """By peer; nobody if only this node's own rows were looked at."""


class Repairing:
    """Repairs on demand; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        damage: Damage,
        scrubber: Scrubber,
        healing: Healing,
        anti_entropy: AntiEntropy,
        *,
        compare_led: CompareLed,
    ) -> None:
        """Repair with the means of this node's background work; ``compare_led`` has a partition's leader compare."""
        self.compare_led = compare_led
        self._topology = topology
        self._damage = damage
        self._scrubber = scrubber
        self._healing = healing
        self._anti_entropy = anti_entropy

    async def repair(
        self,
        table: Table,
        partition: PartitionId,
        *,
        deadline: float,
        is_dry_run: bool = False,
        is_scrub_only: bool = False,
    ) -> Repaired:
        """Repair a partition that this node holds.

        Args:
            table: known here.
            partition: held here.
            deadline: loop time.
            is_dry_run: only count.
            is_scrub_only: leave the other replicas alone.
        """
        overlooked = self._damage.overlooked
        scrubbed = await self._scrubber.scrub(table, partition, is_dry_run=is_dry_run)
        damaged, left = scrubbed.damaged + scrubbed.unreadable, list[Wound]()
        if damaged and not is_dry_run:
            left = await self._healing.attempted(table, partition, deadline=deadline)
        overlooked = self._damage.overlooked - overlooked
        return Repaired(
            rows=scrubbed.rows,
            damaged=damaged,
            healed=0 if is_dry_run else damaged - min(damaged, len(left) + overlooked),
            leaves_wrong=scrubbed.leaves_wrong,
            problems=(*dict.fromkeys(wound.problem for wound in left), *([_TOO_MUCH] if overlooked else [])),
            peers={} if is_scrub_only else await self._compare(table, partition, deadline, is_dry_run=is_dry_run),
        )

    async def _compare(
        self, table: Table, partition: PartitionId, deadline: float, *, is_dry_run: bool
    ) -> dict[NodeId, Comparison]:
        if table.has_leaders:
            return await self.compare_led(table, partition, deadline=deadline, is_dry_run=is_dry_run)
        replicas = self._topology.ring.preference_list(partition, table.rule)
        peers = [node for node in replicas if node != self._topology.node]
        found: dict[NodeId, Comparison] = {}
        for peer in peers:
            found[peer] = await self._anti_entropy.compare(
                table, partition, peer, deadline=deadline, is_dry_run=is_dry_run
            )
        brought = [place for place, peer in enumerate(peers) if found[peer].met_here]
        for peer in peers[: max(brought, default=0)] if not is_dry_run else ():
            again = await self._anti_entropy.compare(table, partition, peer, deadline=deadline)
            found[peer] = _together(found[peer], again)
        return found


def _together(first: Comparison, again: Comparison) -> Comparison:
    return msgspec.structs.replace(
        again,
        differing=first.differing + again.differing,
        in_flight=first.in_flight + again.in_flight,
        met_here=first.met_here + again.met_here,
        met_there=first.met_there + again.met_there,
        listed=first.listed + again.listed,
        damaged=tuple(dict.fromkeys(first.damaged + again.damaged)),
        sent_bytes=first.sent_bytes + again.sent_bytes,
        received_bytes=first.received_bytes + again.received_bytes,
    )
