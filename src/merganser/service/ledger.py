"""The ledger: one record for each transaction under way, in a leader-based table that the cluster makes when needed.

The table belongs to no wire that clients speak. Its records change through steps at the leader of their key
(`core.transaction`), so a record is decided once, whoever asks.

A record names the keys of the items. So a transaction on tables with a policy has its record in a ledger of such a
policy: of that among them which allows nothing that another forbids. The id of a transaction tells which, by four more
bytes at its end. Which one it was before the policy of a table changed: `core.ledgers`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from merganser.core import cluster_map, transaction
from merganser.core import ledgers as core
from merganser.core.token import token_of
from merganser.model.cluster import SYSTEM_WIRE, ClusterMap, Replication, Table
from merganser.model.errors import (
    TableNotFoundError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.leader_messages import Changed, Led
from merganser.model.policy import Policy
from merganser.model.transaction import LedgerStep, Record
from merganser.service.steps import TRANSACTIONS
from merganser.storage import keys

WIRE: Final = SYSTEM_WIRE
NAME: Final = "transactions"
"""Of the table without a policy; others have the number of theirs behind it."""
ID_SIZE: Final = 16
_POLICY_SIZE: Final = 4
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

    async def look_for_news(self) -> None:
        """Ask a majority of the voters for a newer map, as far as one answers: `Catalog.look_for_news`."""

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
        policy: Policy | None = ...,
        policy_number: int = ...,
    ) -> Table:
        """Make a table; raises as `Catalog.create_table`."""


class Told(msgspec.Struct, frozen=True):
    """What the ledger answered to a step."""

    record: Record | None
    """As it is after the step, without its items."""
    is_rejected: bool


class Chosen(msgspec.Struct, frozen=True):
    """Where the record of a transaction is, by one map."""

    id: bytes
    former: tuple[bytes, ...]
    """Its ids in the ledgers that may have a record of it from before (`core.ledgers`)."""
    epoch: int
    """Of the map."""


def is_ledger(table: Table) -> bool:
    """Tell whether ``table`` holds records rather than items of clients."""
    return table.wire == WIRE and (table.name == NAME or table.name.startswith(f"{NAME}/"))


def ledgers(current: ClusterMap) -> Sequence[Table]:
    """Return all tables of records that a map has."""
    return [table for table in current.tables if is_ledger(table)]


def ledger_of(current: ClusterMap, transaction_id: bytes) -> Table | None:
    """Return the table that has the record of a transaction, None if the map does not have it."""
    return cluster_map.table_named(current, WIRE, _name(_policy_in(transaction_id)))


def id_within(transaction_id: bytes, current: ClusterMap, tables: Iterable[Table]) -> bytes:
    """Return the id, made of `ID_SIZE` bytes, of a transaction on items of ``tables``.

    Raises:
        RequestError: nowhere can there be a record that names items of all of them.
    """
    assert len(transaction_id) == ID_SIZE
    return _in_ledger(transaction_id, core.number_for(current, core.newest_of(current, tables)))


def _in_ledger(transaction_id: bytes, number: int) -> bytes:
    return transaction_id + number.to_bytes(_POLICY_SIZE, "big") if number else transaction_id


def _policy_in(transaction_id: bytes) -> int:
    return int.from_bytes(transaction_id[ID_SIZE:], "big")


def _name(policy: int) -> str:
    return f"{NAME}/{policy}" if policy else NAME


def unique_ids(current: ClusterMap) -> Collection[str]:
    """Return the unique ids of the ledgers of a map, and of that which any cluster has sooner or later."""
    return {UNIQUE_ID, *(table.unique_id for table in ledgers(current))}


class Ledger:
    """The records of transactions; see the module's docstring."""

    def __init__(self, catalog: Tables, items: Items) -> None:
        """Keep records through ``items``, in the table that ``catalog`` knows or makes."""
        self._catalog = catalog
        self._items = items

    def chosen(self, transaction_id: bytes, tables: Iterable[Table]) -> Chosen:
        """Return where the record of a transaction on items of ``tables`` is, by the newest map known here.

        Raises:
            RequestError: as `id_within`.
        """
        current = self._catalog.current
        known = core.newest_of(current, tables)
        former = [_in_ledger(transaction_id, number) for number in core.former_numbers(current, known)]
        return Chosen(id_within(transaction_id, current, known), tuple(former), current.epoch)

    async def look_for_news(self) -> None:
        """Ask for a newer map; there may be none to be had."""
        await self._catalog.look_for_news()

    def tables(self) -> Sequence[Table]:
        """Return the tables that this node knows of."""
        return ledgers(self._catalog.current)

    def known(self, transaction_id: bytes = b"") -> Table | None:
        """Return the table of a transaction, None if this node knows of none; without an id, that without a policy."""
        return ledger_of(self._catalog.current, transaction_id)

    async def made(self, transaction_id: bytes, *, deadline: float) -> Table:
        """Return the table of a transaction, making it if there is none.

        Raises:
            UnavailableError: no majority of the voters of the cluster map; there may be one later.
        """
        known, number = self.known(transaction_id), _policy_in(transaction_id)
        if known is not None:
            return known
        policy = dict(self._catalog.current.policies).get(number)
        if number and policy is None:
            raise UnavailableError(f"this node does not know policy {number}, try again")
        try:
            return await self._catalog.create_table(
                wire=WIRE,
                name=_name(number),
                definition=b"",
                unique_id=f"{UNIQUE_ID}/{number}" if number else UNIQUE_ID,
                replication="leader",
                policy=policy,
                policy_number=number,
                deadline=deadline,
            )
        except UnknownOutcomeError as error:
            raise UnavailableError(f"the ledger of transactions could not be made in time: {error}") from None

    async def read(self, transaction_id: bytes, *, deadline: float) -> Record | None:
        """Return a record as it is at some instant between the call and its end.

        Raises:
            UnavailableError: it cannot be read by ``deadline``.
        """
        table = self.known(transaction_id)
        if table is None:
            try:
                table = await self._catalog.table(WIRE, _name(_policy_in(transaction_id)), deadline=deadline)
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
        table = await self.made(transaction_id, deadline=deadline)
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
