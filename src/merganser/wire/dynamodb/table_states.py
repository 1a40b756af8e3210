"""TableStatus: what a table is on its way to, and until when.

::

    CreateTable --> CREATING --> ACTIVE <--> UPDATING          UpdateTable
                                    |
                                    v
                                DELETING --> gone              DeleteTable

What was asked for is so at once. A node whose table delay is above zero lets the state last: a `Transition` in the
table's definition says until when, by the clock of the node that took the request. From it and the time follows the
status, so all nodes say the same, whatever becomes of the one that began it. Nobody has to end CREATING and UPDATING. A
table whose DELETING is over is dropped by whoever meets it first: an operation (`session`), or `service.table_ends`.
Until then it is DELETING.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

import msgspec

from merganser.model.ids import TableId
from merganser.wire.dynamodb.errors import RESOURCE_IN_USE, ApiError
from merganser.wire.dynamodb.table_settings import Throughput

Status = Literal["CREATING", "UPDATING", "DELETING"]

UNSERVED: Final = ("CREATING", "DELETING")
"""Items of a table are neither read nor written meanwhile."""
_DOINGS: Final = {"CREATING": "created", "UPDATING": "updated", "DELETING": "deleted"}


class IndexChange(msgspec.Struct, frozen=True):
    """A global index is given other settings."""

    entries: TableId
    """The table of its entries."""
    was: Throughput | None
    """Its throughput until now, if it is told as it was."""


class Transition(msgspec.Struct, frozen=True):
    """A state that ends."""

    status: Status
    until_ms: int
    """Milliseconds since 1970."""
    was: Throughput | None = None
    """Of a table UPDATING: its throughput until now, if it is told as it was."""
    begins_on_demand: bool = False
    """Of a table UPDATING: it becomes PAY_PER_REQUEST."""
    indexes: tuple[IndexChange, ...] = ()
    """Of a table UPDATING: its global indexes that are given other settings."""
    added: str | None = None
    """Of a table UPDATING: the name of the global index that it is given, which waits for its filling to begin."""

    def of_index(self, entries: TableId) -> IndexChange | None:
        """Return what it is for a global index, named by the table of its entries."""
        return next((change for change in self.indexes if change.entries == entries), None)


def lasting(transition: Transition | None, now_ms: int) -> Transition | None:
    """Return the state that a table is in; None: ACTIVE."""
    if transition is None or (transition.until_ms <= now_ms and transition.status != "DELETING"):
        return None
    return transition


def is_over(transition: Transition, now_ms: int) -> bool:
    """Tell whether a table is to be dropped."""
    return transition.status == "DELETING" and transition.until_ms <= now_ms


def is_unserved(transition: Transition, now_ms: int) -> bool:
    """Tell whether items of a table are neither read nor written."""
    state = lasting(transition, now_ms)
    return state is not None and state.status in UNSERVED


def refuse_while(statuses: Collection[str], name: str, transition: Transition | None) -> None:
    """Return if a table of that name is in none of some states.

    Raises:
        ApiError: it is.
    """
    if transition is not None and transition.status in statuses:
        raise ApiError(
            RESOURCE_IN_USE,
            f"Attempt to change a resource which is still in use: Table is being {_DOINGS[transition.status]}: {name}",
        )
