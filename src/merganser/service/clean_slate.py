"""Drop every table of a cluster in one change of its map: the slate that a test starts with.

The ledger of transactions goes, too, and with it the tokens of clients: a test that repeats the token of an earlier
one is not told that its transaction has happened. What transactions do after their answers is waited for first, or they
would find neither record nor items. Only for clusters that are there to be tested against: nothing asks twice.
"""

from __future__ import annotations

import asyncio

from merganser.core import cluster_map
from merganser.service import ledger
from merganser.service.catalog import Catalog
from merganser.service.transactions import Transactions

QUIET_S = 1.0
"""A transaction that is held up for longer than this by a client or a replica is not waited for."""


async def clean(catalog: Catalog, transactions: Transactions, *, deadline: float) -> int:
    """Drop all tables, deletion protection or not, and return how many there were, hidden ones included.

    Raises:
        as `Catalog.change`.
    """
    if not catalog.current.tables:
        return 0
    try:
        async with asyncio.timeout(QUIET_S):
            await transactions.idle()
    except TimeoutError:
        pass
    before = catalog.current
    await catalog.change(
        lambda current: cluster_map.without_tables(current, remade=ledger.unique_ids(current)), deadline=deadline
    )
    return len(before.tables)
