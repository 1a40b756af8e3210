"""A request is answered if those who have to answer it are well: the cluster stays writable through every fault.

A node is well if no fault hurts it, and none has for some seconds (`RECOVERY_S`); nodes that are well hear each other.
A request through such a node must be answered if as many nodes, and as many primaries of its key, are well as its level
needs: the sloppy quorum fills the places of the others. A page of a range needs replicas of many keys, so it must be
answered while all are well.

What only the leader of a partition can answer must be answered while a majority of its replicas is well, and no fault
has begun or ended for as long as an election may take (`ELECTION_S`): each may have cost the partition its leader.
Nor may some links of a node be cut and others not: it may lead with the help of some, out of reach of others.

Source: DeCandia 2007 §4.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.model.ids import NodeId
from merganser.sim.checkers.replicas import NodeState, keepers_of, replicas_of
from merganser.sim.history import Failure, History

RECOVERY_S = 3.0  # to start, to connect again (within a second), to work off what has waited; storms delay by up to 3 s

ELECTION_S = 5.0
"""To miss a leader, to elect another in spite of messages delayed by up to 3 s, and to go through what is in doubt."""


def unanswered_requests(history: History, states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each request that was left unanswered though enough nodes were well."""
    if history.has_other_members:  # the map in the end does not tell who had to answer
        return
    for failure in history.failures:
        hurt = _hurt(history, failure)
        if hurt is None or failure.node in hurt or (failure.is_of_leader and _may_lack_a_leader(history, failure)):
            continue
        well = {state.node for state in states} - hurt
        if not hurt if failure.key is None else _are_enough(failure, failure.key, well, states):
            when = f"from {failure.began_s:.4f} to {failure.ended_s:.4f} s"
            yield f"not answered: {failure.what} through {failure.node} {when}, though {len(well)} nodes were well"


def _are_enough(failure: Failure, key: bytes, well: set[NodeId], states: Sequence[NodeState]) -> bool:
    """Tell whether those who are well can answer; nobody can if the table is gone."""
    keepers, replicas = well & keepers_of(key, states), replicas_of(key, states)
    primaries = well.intersection(replicas)
    if any(len(primaries.intersection(part.members)) < part.required for part in failure.need.parts):
        return False
    return bool(replicas) and len(keepers) >= failure.need.nodes and len(primaries) >= failure.need.primaries


def _may_lack_a_leader(history: History, failure: Failure) -> bool:
    """Tell whether a fault began or ended while the request lasted, or shortly before, or cut some links of a node."""
    return any(
        trouble.is_partial and trouble.began_s <= failure.ended_s and trouble.ended_s + ELECTION_S >= failure.began_s
        for trouble in history.troubles
    ) or any(
        failure.began_s - ELECTION_S <= moment_s <= failure.ended_s
        for trouble in history.troubles
        if not trouble.is_partial
        for moment_s in (trouble.began_s, trouble.ended_s)
    )


def _hurt(history: History, failure: Failure) -> set[NodeId] | None:
    """Return who was not well while the request lasted; None if it was everyone."""
    hurt: set[NodeId] = set()
    for trouble in history.troubles:
        if trouble.began_s <= failure.ended_s and trouble.ended_s + RECOVERY_S >= failure.began_s:
            if trouble.nodes is None:
                return None
            hurt |= trouble.nodes
    return hurt
