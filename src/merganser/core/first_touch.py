"""What a new leader makes of what a majority of replicas hold, and what of a place it knows already.

An item is *known* in an epoch once its leader may evaluate steps on the register that it holds itself::

    unknown --majority, all equal---------------------------------------------> known
       |                                                                          ^
       +------majority, they differ--> the latest is written back, as a new -----+
                                       version of this epoch                  by its version

Whole places (a partition of a table) are known at once if the hash trees of a majority are equal, and else after a
walk from their start to their end, which looks at the rows of unequal leaves only. What was touched ahead of it is
remembered until it has passed.

Invariants: an answer counts only if it is durable, and of a replica that has promised the epoch; a register that
is missing is an answer, a damaged one is none.

Source: design §5; docs/internals/leader.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from merganser.model.ids import NodeId
from merganser.model.register import NO_VERSION, Version

TOUCHED_MAX = 100_000
"""Keys remembered ahead of the walk, 10 MiB of them; beyond that all are forgotten, and touched again."""


class Touched(msgspec.Struct, frozen=True):
    """What the answers of a majority say."""

    is_known: bool
    """What this node holds is what the majority holds."""
    adopt: bytes | None = None
    """Else: the register to write back, as it is stored; None: that there is none."""


KNOWN = Touched(is_known=True)


def touched(
    own: bytes | None,
    answers: Sequence[bytes | None],
    *,
    is_own_intact: bool,
    quorum: int,
    meets: int,
    version_of: Callable[[bytes], Version],
) -> Touched | None:
    """Return what is to be done about an item, None while too few have answered.

    Args:
        own: what this node holds.
        answers: of other replicas.
        is_own_intact: else it counts for nothing.
        quorum: how many replicas decide; a majority, as a rule.
        meets: how many intact registers, this node's included, meet all by whom anything was decided: of an even number
            one less than a majority. It tells what was acknowledged, and not whether what is found is held by a
            majority, so that is written back.
        version_of: of a stored register.

    Raises:
        CorruptionError: an answer is damaged.
    """
    heard = len(answers) + is_own_intact
    if heard < meets:
        return None
    if is_own_intact and heard >= quorum and all(answer == own for answer in answers):
        return KNOWN
    held = [*answers, own] if is_own_intact else answers
    return Touched(
        is_known=False, adopt=max(held, key=lambda stored: NO_VERSION if stored is None else version_of(stored))
    )


def is_known_by_roots(roots: Mapping[NodeId, int], me: NodeId, quorum: int) -> bool:
    """Tell whether ``quorum`` hash trees, this node's among them, had equal roots when they promised."""
    own = roots.get(me)
    return own is not None and sum(root == own for root in roots.values()) >= quorum


def unequal(own: Sequence[int], others: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return the stretches of leaves in which a hash tree differs from any of the others; first and one after the last.

    Between them everything is known, if the others are of as many replicas as make a majority with this one.
    """
    stretches: list[tuple[int, int]] = []
    for leaf, hashed in enumerate(own):
        if all(leaves[leaf] == hashed for leaves in others):
            continue
        if stretches and stretches[-1][1] == leaf:
            stretches[-1] = (stretches[-1][0], leaf + 1)
        else:
            stretches.append((leaf, leaf + 1))
    return stretches


class KnownPlace:
    """What is known of a partition of a table, in one epoch."""

    __slots__ = ("_touched", "is_whole", "until")

    def __init__(self, start: bytes, *, is_whole: bool) -> None:
        """Know everything, or nothing from ``start`` on."""
        self.is_whole = is_whole
        self.until = start
        """All keys of the place before this one are known."""
        self._touched: set[bytes] = set()

    def knows(self, key: bytes) -> bool:
        """Tell whether the item is known."""
        return self.is_whole or key < self.until or key in self._touched

    def touched(self, key: bytes) -> None:
        """Note that one item is known."""
        if not self.knows(key):
            if len(self._touched) >= TOUCHED_MAX:
                self._touched.clear()
            self._touched.add(key)

    def covered(self, start: bytes, end: bytes) -> None:
        """Note that all items of ``start <= key < end`` are known."""
        if start <= self.until < end:
            self.until = end

    def completed(self) -> None:
        """Note that everything is known."""
        self.is_whole = True
        self._touched.clear()
