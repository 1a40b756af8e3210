"""What a node may still do when its disk has lost, or cannot take, what it should hold; and how it becomes whole again.

A disk is *failed* (no write succeeds any more), *short* of room (rows are refused, metadata is not), or has *lost* what
it had acknowledged. A refusal of this module says that nothing was written, so that coordinators go elsewhere::

                         failed   short   lost
    clients' writes        no      no      no    the ack would say that the node knows what came before
    hints                  no      no      no
    repairs                no      no      yes
    reads of rows, hints   yes     yes     no    what is not here may have been
    votes, the map         yes     yes     no    until the node has rejoined the register (`core.register`)
    leader-based tables:
    writes of leaders      no      no      no    what was promised is forgotten as well
    touches, elections     yes     yes     no    both group by group (`service.restoring`)

The way of a node back that has lost something::

    lost --sealed, horizons doubted--> clock above what it minted --> register rejoined -->
        each partition equal to *all* other replicas --> whole

With all of them, because what this node and W - 1 others acknowledged may be on any W - 1 of them, and nobody knows on
which. Of leader-based tables each group is made whole by its leader, and takes part again at once. A partition without
other replicas stays lost until an operator says that it may.

Source: design §6; docs/internals/wholeness.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from merganser.core.splitting import halves
from merganser.model.ids import PartitionId, TableId
from merganser.model.leader_messages import (
    Backfill,
    Change,
    CompareLed,
    Copies,
    Drop,
    ReadLed,
    ReadRangeLed,
    Rejoin,
    Replicate,
    Restore,
    Settle,
    Touch,
    TouchRange,
    TouchTree,
)
from merganser.model.messages import (
    A_CLIENTS,
    Accept,
    Apply,
    FetchMap,
    Hint,
    LookAgain,
    Meet,
    Prepare,
    Read,
    ReadHint,
    ReadRange,
    Request,
)
from merganser.model.value_messages import FindTagged, ListRange

LOST = "lost"
SHORT = "short_of_disk"
FAILED = "disk_failed"
NOTHING_WRITTEN = (LOST, SHORT, FAILED)
"""Codes of refusals after which nothing was written."""

_WRITES = (Apply, Hint, Meet, Change, Replicate, Copies, Restore)
_ROWS = (Read, ReadRange, ListRange, FindTagged, ReadHint, Hint)
_VOTES = (Prepare, Accept, FetchMap)
OfGroup = (
    Touch
    | TouchRange
    | TouchTree
    | Replicate
    | LookAgain
    | Drop
    | Change
    | ReadLed
    | ReadRangeLed
    | Settle
    | CompareLed
    | Rejoin
    | Backfill
)
"""What a node is asked as a member of one group. Elections ask for each group by itself (`service.voting`).

`LookAgain` is asked before tombstones are dropped: what a replica holds that is being made whole, `Restore` may still
take back. Of leaderless tables it is part of the way back, and answered. Each of `Copies` is judged by itself.
"""

Place = tuple[TableId, PartitionId]


class Condition(msgspec.Struct, frozen=True):
    """How a node's disk is; None, None, None and False if it is well."""

    failure: str | None = None
    shortage: str | None = None
    lost: str | None = None
    is_forgetful: bool = False
    """It has yet to rejoin the register."""

    @property
    def is_well(self) -> bool:
        """Tell whether nothing at all is refused."""
        return self == _WELL

    def objection(
        self, request: Request, is_group_whole: Callable[[OfGroup], bool] = lambda _request: False
    ) -> tuple[str, str] | None:
        """Return the code and the words of a refusal, None if ``request`` may be served.

        Args:
            request: of a peer.
            is_group_whole: whether the group that it is of is whole again, while something is lost.
        """
        if isinstance(request, _WRITES):
            if self.failure is not None:
                return FAILED, f"its disk has failed: {self.failure}"
            if self.shortage is not None:
                return SHORT, f"it is short of disk: {self.shortage}"
        if self.lost is not None and (isinstance(request, _ROWS) or _is_a_clients_write(request)):
            return LOST, f"its disk has lost what was on it, and it is not whole again: {self.lost}"
        if self.lost is not None and isinstance(request, OfGroup) and not is_group_whole(request):
            return LOST, f"its disk has lost what was on it, and this partition is not whole again: {self.lost}"
        if self.is_forgetful and isinstance(request, _VOTES):
            return LOST, "its disk may have lost what it voted for, and it has yet to hear from the other voters"
        return None


_WELL = Condition()


class Recovery:
    """Which partitions have yet to be compared with all other replicas, and what is in the way."""

    def __init__(self) -> None:
        """Begin with nothing done."""
        self._held: frozenset[Place] = frozenset()
        self._done: set[Place] = set()
        self._problems: dict[Place, str] = {}

    def hold(self, held: Iterable[Place]) -> None:
        """Note what this node holds by the newest map."""
        self._held = frozenset(held)
        self._problems = {place: problem for place, problem in self._problems.items() if place in self._held}

    def split(self, factor: int) -> None:
        """Take each part of a partition for what the partition was, when the ring is cut finer."""
        self._done = {(table, part) for table, whole in self._done for part in halves(whole, factor)}
        self._held, self._problems = frozenset(), {}

    def tried(self, place: Place, problem: str | None) -> None:
        """Note that ``place`` is equal to all other replicas now, or why not."""
        if problem is None:
            self._done.add(place)
            self._problems.pop(place, None)
        else:
            self._problems[place] = problem

    @property
    def left(self) -> list[Place]:
        """What is not done yet, in order."""
        return sorted(self._held - self._done)

    @property
    def done(self) -> int:
        """How many partitions are done."""
        return len(self._held & self._done)

    @property
    def problems(self) -> list[str]:
        """What is in the way, each reason once."""
        return sorted(set(self._problems.values()))


def _is_a_clients_write(request: Request) -> bool:
    return isinstance(request, Apply) and request.vouched_us == A_CLIENTS
