"""Whether a put or delete that depends on something may be done, by what a read has found of its key.

*Not modified*: the context has seen all that has happened to the key. Who has read a key and puts with that context is
refused once somebody else has written meanwhile. *None match*: there is no value now, be it that there never was one,
or that it was deleted, or has expired.
"""

from __future__ import annotations

from collections.abc import Sequence

from merganser.core import causality, last_writes
from merganser.core.siblings import Sibling
from merganser.model.contents import Condition
from merganser.model.row import Context


def objection(
    condition: Condition, *, values: Sequence[Sibling], current: Context, seen: Context, is_causal: bool
) -> str:
    """Return what speaks against it, in words; empty if nothing does.

    Args:
        condition: what must be so.
        values: that can be read now.
        current: the context of that read.
        seen: by the client.
        is_causal: false: the last write wins, and of the context its time alone counts.
    """
    if condition is Condition.NONE_MATCH:
        return f"there is a value already, written by node {values[-1].dot.number}" if values else ""
    if not current:
        return "" if not seen else "there is nothing of what the context has seen any more"
    if not seen:
        return "something was written, and no context was given that has seen it"
    if causality.covers(seen, current) or (
        not is_causal and last_writes.newest(current) <= last_writes.newest(seen)  # read of a replica that is behind
    ):
        return ""
    return "it was modified by somebody whose write the context has not seen"
