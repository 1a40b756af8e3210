"""Tables change one after another, and what was reported stays so.

Of tables created under one name, each but the first needs a drop of the one before. A lookup that
begins after a table was reported as created finds one, unless a drop of it may have come
between. A node may know a dropped table for a while (data never waits for the map), so a lookup may
return an old one, but only one that somebody asked for, and none once all nodes know the newest map.
"""

from __future__ import annotations

from collections.abc import Iterator

from merganser.sim.history import History, TableChange, TableLookup


def broken_tables(history: History) -> Iterator[str]:
    """Yield a sentence for each pair of tables of one name and for each table that was not found."""
    created = [c for c in history.table_changes if not c.is_drop and not c.is_certainly_undone]
    drops = [c for c in history.table_changes if c.is_drop and not c.is_certainly_undone]
    yield from _doubles([c for c in created if c.acked_s is not None], drops)
    for lookup in history.table_lookups:
        yield from _judged(lookup, [c for c in created if c.name == lookup.name], drops)


def _doubles(created: list[TableChange], drops: list[TableChange]) -> Iterator[str]:
    """Yield each two tables of one name between which nobody can have dropped one."""
    for index, one in enumerate(created):
        for other in created[:index]:
            if one.name == other.name and not any(drop.unique_id in (one.unique_id, other.unique_id) for drop in drops):
                yield f"two tables {one.name}: {other.unique_id} and {one.unique_id}"


def _judged(lookup: TableLookup, created: list[TableChange], drops: list[TableChange]) -> Iterator[str]:
    when = f"a lookup of {lookup.name} from {lookup.began_s:.4f} to {lookup.ended_s:.4f} s"
    if lookup.unique_id is not None:
        if not any(c.unique_id == lookup.unique_id and c.began_s <= lookup.ended_s for c in created):
            yield f"{when} found {lookup.unique_id}, which nobody created"
        is_dropped = any(drop.unique_id == lookup.unique_id and drop.acked_s is not None for drop in drops)
        if lookup.is_settled and is_dropped:
            yield f"{when} found {lookup.unique_id}, which was dropped"
        return
    for change in created:
        if change.acked_s is None or change.acked_s >= lookup.began_s:
            continue
        if not any(drop.unique_id == change.unique_id and drop.began_s <= lookup.ended_s for drop in drops):
            yield f"{when} found nothing, though {change.unique_id} was there"
