"""What takes the place of a row that is damaged on one replica, and when.

A damaged row is refused, by reads and by writes, so its replica answers for nothing under that key until it is healed::

    met --IN_FLIGHT_S--> ripe --all other replicas have answered--> decided --put, durable--> healed
                          ^                    |
                          +-- one is away, refuses, or holds it damaged, too: later --+

1. *All others*, not a majority. A write that was acknowledged by W >= 2 replicas, this one among them, is held by at
   least one of the others, and it is not known by which. A majority of all could consist of this one and of those
   that missed it.
2. *Not before what was under way has ended.* A write may have been acked by this replica before the damage was met,
   while the one that makes up its quorum has yet to take it. It counts only if that one acks by the coordinator's
   deadline. The same holds for a read that was answered here and waits for the repair of another. So the others are
   asked once every deadline has passed that was running when this replica last answered, which was before the damage
   was met.
3. *The merge is `horizon.agreed`*, so that what a stale one still holds, and an authority has purged, stays gone.
4. *Equal horizons.* If the highest horizon among the others is this replica's own, what they say is what this replica
   would hold: up to the horizon, everything that is not buried (`core.horizon`, (*)); after it, every tombstone that
   it held and that an acknowledged write left, because nobody has purged that far.
5. *Unequal horizons* put the row in place, but it is *distrusted* with its whole partition first: no reads, until it
   has been compared with all others (`Standing.distrusted`). If an other is further, it has purged tombstones that
   this replica may have held and would need: with neither them nor the horizon it would take a late copy of what they
   buried. If this replica is further than all others, it would vouch for what they say of a time that they do not
   vouch for.
6. A replica that is adopting a horizon takes nothing from before it that nobody as far vouches for, and so nothing is
   decided then.
7. *A replica that has lost rows is waited for, but not for ever*: it may be waiting for this one. What it had left it
   passes on to the others meanwhile, as it tries again and again to become equal to each; that it can reach them
   within `LOST_PATIENCE_S` is assumed.

What only the damaged replica held, a write at ONE for example, is gone with it.

Source: design §6; DeCandia 2007 §4.7 is about replicas that lack a row, not about one that cannot tell.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from merganser.core import horizon
from merganser.core.horizon import Standing
from merganser.model.row import Row

IN_FLIGHT_S = 12.0
"""Longer than any coordinator waits for acks: the wires give a request ten seconds (2 above)."""


LOST_PATIENCE_S = 60.0
"""A node that recovers tries each of its partitions once a second."""


def is_given_up(*, lost_since_s: float, now_s: float) -> bool:
    """Tell whether the row is to be healed without a replica that has refused since then because it has lost rows."""
    return now_s - lost_since_s >= LOST_PATIENCE_S


class Healed(msgspec.Struct, frozen=True):
    """What is to be done about a damaged row."""

    row: Row | None
    """To be stored in its place; None: nothing is."""
    is_distrusted: bool
    """The partition has to be compared with all other replicas before it answers reads again."""


def healed(others: Sequence[tuple[Row | None, int]], standing: Standing, *, floor_us: int) -> Healed | None:
    """Decide what takes the place of a damaged row; None: nothing can just now, try again.

    Args:
        others: the row and the horizon of every other replica; at least one.
        standing: of this replica, unchanged since the others were asked.
        floor_us: its horizon, or the one that it is about to adopt.
    """
    highest = max(horizon_us for _, horizon_us in others)
    is_adopting = floor_us > standing.horizon_us
    if is_adopting and highest < floor_us:
        return None
    is_distrusted = standing.is_whole and highest != standing.horizon_us
    return Healed(horizon.agreed(others), is_distrusted)
