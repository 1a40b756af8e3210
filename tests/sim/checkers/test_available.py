"""The checker of availability: who must be answered, and who need not."""

from __future__ import annotations

import msgspec
import pytest

from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.consistency import Need
from merganser.model.ids import ClusterId, NodeId, TableId
from merganser.sim.checkers.available import RECOVERY_S, unanswered_requests
from merganser.sim.checkers.replicas import NodeState, replicas_of
from merganser.sim.history import Failure, History, Trouble
from merganser.storage import keys

NODES = tuple(NodeId(name) for name in "abcde")
TABLE = Table(TableId(1), "t", "sim", 3, b"", "unique")
MAP = ClusterMap(
    ClusterId("0" * 16),
    epoch=1,
    partitions=8,
    nodes=tuple(NodeRecord(node, number, f"{node}:1", {}, node) for number, node in enumerate(NODES, start=1)),
    owners=tuple(number % 5 + 1 for number in range(8)),
    voters=(1, 2, 3),
    tables=(TABLE,),
)
STATES = [NodeState(node, MAP, {}) for node in NODES]
KEY = keys.row_key(TABLE.id, token_of(b"k"), b"k", b"")
PRIMARIES = replicas_of(KEY, STATES)
OTHERS = tuple(node for node in NODES if node not in PRIMARIES)
STRICT, SLOPPY = Need(2, 2), Need(3, 0)


def told(*troubles: Trouble, need: Need = STRICT, key: bytes | None = KEY, by: NodeId = OTHERS[0]) -> list[str]:
    history = History()
    history.troubles = list(troubles)
    history.failures.append(Failure("write", key, by, need, 10.0, 12.0))
    return list(unanswered_requests(history, STATES))


def hurting(*nodes: NodeId, began_s: float = 11.0, ended_s: float = 20.0) -> Trouble:
    return Trouble(frozenset(nodes), began_s, ended_s)


def test_a_request_must_be_answered_while_all_is_well() -> None:
    assert len(told()) == 1
    assert "5 nodes were well" in told()[0]


def test_a_request_must_be_answered_while_one_primary_is_away() -> None:
    assert told(hurting(PRIMARIES[0]))
    assert not told(hurting(*PRIMARIES[:2])), "two are needed and one is left"


def test_a_sloppy_quorum_must_be_filled_by_whoever_is_well() -> None:
    assert told(hurting(*PRIMARIES[:2]), need=SLOPPY)
    assert not told(hurting(*PRIMARIES), need=SLOPPY), "three are needed and two are left"


def test_a_node_that_is_not_well_owes_nothing() -> None:
    assert not told(hurting(OTHERS[0]))


@pytest.mark.parametrize(
    ("began_s", "ended_s", "is_excuse"),
    [(0.0, 9.9, True), (0.0, 10.0 - RECOVERY_S - 0.1, False), (12.1, 20.0, False), (11.9, 20.0, True)],
)
def test_a_fault_excuses_until_some_seconds_after_it(began_s: float, ended_s: float, is_excuse: bool) -> None:
    assert bool(told(hurting(OTHERS[0], began_s=began_s, ended_s=ended_s))) is not is_excuse


def test_what_hurts_everyone_excuses_everyone() -> None:
    assert not told(Trouble(None, 11.0))


def test_a_page_must_be_answered_only_while_all_are_well() -> None:
    assert told(key=None)
    assert not told(hurting(OTHERS[1]), key=None)


def test_nothing_is_due_of_a_table_that_is_gone() -> None:
    history = History()
    history.failures.append(Failure("write", KEY, NODES[0], STRICT, 10.0, 12.0))
    states = [NodeState(node, msgspec.structs.replace(MAP, tables=()), {}) for node in NODES]
    assert not list(unanswered_requests(history, states))
