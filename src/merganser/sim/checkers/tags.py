"""What queries by tag have to do with what was put, and what a replica's index has to do with its rows.

- *Missed*: a put that was acknowledged before a query began, and that nobody who had seen it has begun to replace
  before the query ended, is found by each of its tags in the range.
- *Lingers*: what is found was put with that tag, and was not replaced by a put that was acknowledged before the query
  began.
- *Order*: a query tells of each tag of each key once, in the order of the tags. From page to page a row that changes
  may come up again under a greater tag, never under the same one.
- *Entries*: those of a replica are a function of its rows.

All at QUORUM. What a client has seen is by its own account, which is never more than its context has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.core.ring import Ring
from merganser.model.errors import CorruptionError
from merganser.service.tag_index import entries_of
from merganser.sim.checkers.replicas import NodeState
from merganser.sim.history import History, TagQuery, ValuePut
from merganser.storage import keys


def tags_that_lie(history: History) -> Iterator[str]:
    """Yield a sentence for each query that breaks a promise above."""
    successors: dict[bytes, list[ValuePut]] = {}
    for put in history.value_puts:
        if not put.is_certainly_unwritten:
            for seen in put.seen:
                successors.setdefault(seen, []).append(put)
    for query in history.tag_queries:
        when = f"a query for {query.low} to {query.high} from {query.began_s:.4f} to {query.ended_s:.4f} s"
        for what in _flaws(query, history.value_puts, successors):
            yield f"{when} {what}"


def _flaws(query: TagQuery, puts: Sequence[ValuePut], successors: dict[bytes, list[ValuePut]]) -> Iterator[str]:
    found = set(query.found)
    borne_out: set[tuple[int, bytes]] = set()
    for put in puts:
        after = successors.get(put.value, [])
        told = {(tag, put.key) for tag in put.tags if query.low <= tag <= query.high}
        if put.acked_s is not None and put.acked_s < query.began_s:
            is_stable = all(other.began_s > query.ended_s for other in after)
            for tag, key in sorted(told - found) if is_stable else ():
                yield f"missed {key!r}, put as {put.value!r} with tag {tag}"
        is_replaced = any(other.acked_s is not None and other.acked_s < query.began_s for other in after)
        if put.began_s <= query.ended_s and not put.is_certainly_unwritten and not is_replaced:
            borne_out |= told
    for tag, key in sorted(found - borne_out):
        yield f"told of {key!r} with tag {tag}, which nothing there has"
    if len(found) != len(query.found):
        yield f"told of something twice: {query.found}"
    tags = [tag for tag, _ in query.found]
    if tags != sorted(tags):
        yield f"told of tags out of order: {tags}"


def tags_not_as_rows_have_them(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each entry that a node has and should not have, or the other way round."""
    for state in states:
        tables, ring = {table.id for table in state.map.tables if table.has_contents}, Ring(state.map)
        wanted: set[bytes] = set()
        damaged: list[bytes] = []
        for key, stored in state.rows.items():
            if keys.table_in(key) in tables:
                place = (keys.table_in(key), ring.partition_of(keys.token_in(key)))
                try:
                    wanted |= entries_of(place, key, stored)
                except CorruptionError:
                    damaged.append(key[4:])
        for entry in sorted(wanted - state.tags):
            yield f"{state.node} has no entry {entry!r} in its index of tags"
        for entry in sorted(state.tags - wanted):
            if not entry.endswith(tuple(damaged)):
                yield f"{state.node} has an entry {entry!r} in its index of tags of what it does not hold"
