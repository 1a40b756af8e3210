"""The ledger: one record for each transaction under way, in a leader-based table that the cluster makes when needed.

The table belongs to no wire that clients speak. Its records change through steps at the leader of their key
(`core.transaction`), so a record is decided once, whoever asks.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from merganser.core import cluster_map, transaction
from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, Replication, Table
from merganser.model.errors import (
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.leader_messages import Changed, Led
from merganser.model.transaction import LedgerStep, Record
from merganser.service.steps import TRANSACTIONS
from merganser.storage import keys

WIRE: Final = "system"
"""Of tables that belong to no client."""
NAME: Final = "transactions"
UNIQUE_ID: Final = "00000000-0000-4000-8000-7472616e7361"
"""The same wherever the table is asked for, so that it is made once."""


class Items(Protocol):
    """Items of leader-based tables, wherever their leaders are: `service.leader_based`."""

    async def change(self, table: Table, key: bytes, kind: int, payload: bytes, *, deadline: float) -> Changed:
        """Have the leader do a step; raises as `LeaderBased.change`."""

    async def read(self, table: Table, key: bytes, *, is_consistent: bool, deadline: float) -> Led:
        """Read an item; raises as `LeaderBased.read`."""


class Tables(Protocol):
    """The tables of the cluster: `service.catalog`."""

    @property
    def current(self) -> ClusterMap:
        """The newest map known here."""

    async def table(self, wire: str, name: str, *, deadline: float) -> Table:
        """Return a table, known here or not; raises as `Catalog.table`."""

    async def create_table(
        self,
        *,
        wire: str,
        name: str,
        definition: bytes,
        unique_id: str,
        deadline: float,
        n: int = ...,
        replication: Replication = ...,
    ) -> Table:
        """Make a table; raises as `Catalog.create_table`."""


class Told(msgspec.Struct, frozen=True):
    """What the ledger answered to a step."""

    record: Record | None
    """As it is after the step, without its items."""
    is_rejected: bool


def is_ledger(table: Table) -> bool:
    """Tell whether ``table`` holds records rather than items of clients."""
    return table.wire == WIRE and table.name == NAME


class Ledger:
    """The records of transactions; see the module's docstring."""

    def __init__(self, catalog: Tables, items: Items) -> None:
        """Keep records through ``items``, in the table that ``catalog`` knows or makes."""
        self._catalog = catalog
        self._items = items

    def known(self) -> Table | None:
        """Return the table, None if this node knows of none."""
        return cluster_map.table_named(self._catalog.current, WIRE, NAME)

    async def made(self, *, deadline: float) -> Table:
        """Return the table, making it if there is none.

        Raises:
            UnavailableError: no majority of the voters of the cluster map; there may be one later.
        """
        known = self.known()
        if known is not None:
            return known
        try:
            return await self._catalog.create_table(
                wire=WIRE, name=NAME, definition=b"", unique_id=UNIQUE_ID, replication="leader", deadline=deadline
            )
        except UnknownOutcomeError as error:
            raise UnavailableError(f"the ledger of transactions could not be made in time: {error}") from None

    async def read(self, transaction_id: bytes, *, deadline: float) -> Record | None:
        """Return a record as it is at some instant between the call and its end.

        Raises:
            UnavailableError: it cannot be read by ``deadline``.
        """
        table = self.known()
        if table is None:
            try:
                table = await self._catalog.table(WIRE, NAME, deadline=deadline)
            except TableNotFoundError:
                raise UnavailableError("no ledger of transactions is known, try again") from None
        led = await self._items.read(table, key_of(table, transaction_id), is_consistent=True, deadline=deadline)
        return transaction.record_in(led.value)

    async def change(self, transaction_id: bytes, step: LedgerStep, *, deadline: float) -> Told:
        """Do ``step`` on a record.

        Raises:
            UnavailableError: certainly not done.
            UnknownOutcomeError: it may be done, now or later.
        """
        table = await self.made(deadline=deadline)
        changed = await self._items.change(
            table, key_of(table, transaction_id), TRANSACTIONS, transaction.payload_of(step), deadline=deadline
        )
        return Told(transaction.record_in(changed.answer), changed.is_rejected)


def key_of(table: Table, transaction_id: bytes) -> bytes:
    """Return the key of a record."""
    return keys.row_key(table.id, token_of(transaction_id), transaction_id)


def id_in(key: bytes) -> bytes:
    """Return the transaction whose record lies under ``key``."""
    return keys.split_row_key(key)[2]
