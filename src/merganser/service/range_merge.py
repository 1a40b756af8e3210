"""Line up the pages that several replicas sent for one range.

Each page is complete up to its last key, or up to the end of the range. Only as far as all pages
reach is it known what every replica holds, so the merged page ends where the shortest one does. A
key that a replica's page lacks within that reach is a key it does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from merganser.core.ring import Ring
from merganser.model.consistency import Need
from merganser.model.ids import NodeId
from merganser.model.messages import Rows
from merganser.model.row import Row
from merganser.storage import keys


class Run(NamedTuple):
    """What replicas tell of some partitions that they all hold, one after another on the ring."""

    low: bytes
    high: bytes
    """Exclusive."""
    replicas: tuple[NodeId, ...]
    """All that could be asked."""
    need: Need
    pages: dict[NodeId, Rows]
    """Of those that were."""

    def horizon_at(self, ring: Ring, key: bytes, node: NodeId) -> int:
        """Return the horizon of ``node`` for the partition of ``key``."""
        horizons = self.pages[node].horizons
        place = ring.partition_of(keys.token_in(key)) - ring.partition_of(keys.token_in(self.low))
        return horizons[place] if horizons else 0


class MergedPage(msgspec.Struct, frozen=True):
    """What every replica holds, key by key."""

    answers: list[tuple[bytes, dict[NodeId, bytes | None]]]
    """In the order of the read; None where the replica lacks the key."""
    resume: bytes | None
    """Where the next page starts (its exclusive end, when reversed); None when all reached the end."""


class RangePage(msgspec.Struct, frozen=True):
    """Some rows of a range, in the order asked for."""

    rows: list[tuple[bytes, Row]]
    """Key and merged row; only rows with a live cell."""
    resume: bytes | None
    """Where the next page starts (its exclusive end, when reversed); None when nothing is left."""


def merge_pages(pages: Mapping[NodeId, Rows], *, reverse: bool) -> MergedPage:
    """Return what ``pages`` of one range say together."""
    reach = _reach(pages, reverse=reverse)
    by_key: dict[bytes, dict[NodeId, bytes | None]] = {}
    for node, page in pages.items():
        for key, stored in page.rows:
            if reach is None or (key >= reach if reverse else key <= reach):
                by_key.setdefault(key, dict.fromkeys(pages))[node] = stored
    resume = reach if reverse or reach is None else keys.after(reach)
    return MergedPage([(key, by_key[key]) for key in sorted(by_key, reverse=reverse)], resume)


def _reach(pages: Mapping[NodeId, Rows], *, reverse: bool) -> bytes | None:
    """The last key of the page that stopped first; None if all pages came to the end."""
    stops = [page.rows[-1][0] for page in pages.values() if not page.is_last]
    if not stops:
        return None
    return max(stops) if reverse else min(stops)
