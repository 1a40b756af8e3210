"""Every other checker passes a history that is right and tells of one that is wrong."""

from __future__ import annotations

from merganser.core import cluster_map
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.ids import ClusterId, NodeId, TableId, Token
from merganser.model.row import Cell, Row
from merganser.model.timestamp import BEGINNING, Timestamp
from merganser.sim import checkers
from merganser.sim.checkers.held import writes_too_few_hold
from merganser.sim.checkers.monotonic import steps_back
from merganser.sim.checkers.replicas import NodeState, maps_that_differ, replicas_that_differ, rows_out_of_place
from merganser.sim.checkers.resurrection import risen_from_the_dead
from merganser.sim.checkers.scans import broken_scans
from merganser.sim.checkers.sessions import broken_sessions
from merganser.sim.checkers.tables import broken_tables
from merganser.sim.checkers.timestamps import timestamps_that_fell
from merganser.sim.history import History, Read, Scan, TableChange, TableLookup, Write
from merganser.storage import keys
from merganser.storage.values import encode_row

K = b"k"


def at(micros: int, writer: int = 1) -> Timestamp:
    return Timestamp(micros, writer)


def wrote(
    value: bytes | None, micros: int, began_s: float, acked_s: float, *, key: bytes = K, client: int = 0
) -> Write:
    return Write(key, value, began_s, acked_s, at(micros), client=client, minted=at(micros))


def saw(value: bytes | None, micros: int, began_s: float, ended_s: float, *, client: int = 0) -> Read:
    return Read(K, value, at(micros) if micros else BEGINNING, began_s, ended_s, client)


def history(*what: Write | Read | Scan | TableChange | TableLookup) -> History:
    told = History()
    lists = {
        Write: told.writes,
        Read: told.reads,
        Scan: told.scans,
        TableChange: told.table_changes,
        TableLookup: told.table_lookups,
    }
    for one in what:
        lists[type(one)].append(one)  # type: ignore[attr-defined]
    return told


def test_every_checker_says_what_it_sees_to() -> None:
    assert list(checkers.PROMISES) == checkers.names()


# Reads that go back.


def test_reads_go_forward_or_stay() -> None:
    assert list(steps_back(history(saw(b"a", 1, 0, 1), saw(b"a", 1, 2, 3), saw(b"b", 2, 4, 5)))) == []
    assert list(steps_back(history(saw(b"b", 2, 0, 3), saw(b"a", 1, 2, 4)))) == []  # at the same time
    assert list(steps_back(history(saw(None, 2, 0, 1), saw(None, 0, 2, 3)))) == []  # purged


def test_a_read_older_than_an_earlier_one_is_told() -> None:
    (told,) = steps_back(history(saw(b"b", 2, 0, 1), saw(b"a", 1, 2, 3)))
    assert told.startswith("went back")


def test_a_write_under_what_was_read_before_it_is_told() -> None:
    (told,) = steps_back(history(saw(b"b", 5, 0, 1), wrote(b"c", 3, 2, 3)))
    assert told.startswith("invisible")


# Sessions.


def test_a_client_reads_its_own_writes() -> None:
    assert list(broken_sessions(history(wrote(b"a", 1, 0, 1), saw(b"a", 1, 1, 2), saw(b"b", 2, 3, 4)))) == []
    assert list(broken_sessions(history(wrote(b"a", 1, 0, 1, client=1), saw(None, 0, 2, 3)))) == []  # another's
    assert len(list(broken_sessions(history(wrote(b"a", 1, 0, 1), saw(None, 0, 2, 3))))) == 1


def test_a_client_that_writes_under_its_own_write_is_told() -> None:
    (told,) = broken_sessions(history(wrote(b"a", 5, 0, 1), wrote(b"b", 3, 2, 3)))
    assert told.startswith("client 0 wrote")


# The dead.


def test_a_deleted_value_that_comes_back_is_told() -> None:
    gone = history(wrote(b"a", 1, 0, 1), wrote(None, 2, 2, 3), saw(b"a", 1, 4, 5))
    assert [told.split(":")[0] for told in risen_from_the_dead(gone)] == ["risen"]
    anew = history(wrote(None, 2, 2, 3), wrote(b"b", 4, 4, 5), saw(b"b", 4, 6, 7))
    assert list(risen_from_the_dead(anew)) == []


def test_an_expired_value_that_is_seen_is_told() -> None:
    mortal, seen = wrote(b"a", 1, 0, 1), saw(b"a", 1, 2, 3)
    mortal.expires_at_s, seen.wall_s = 5, 4.9
    assert list(risen_from_the_dead(history(mortal, seen))) == []
    seen.wall_s = 5.0
    assert [told.split(":")[0] for told in risen_from_the_dead(history(mortal, seen))] == ["expired"]


# Scans.


def scan(*listed: bytes, is_reverse: bool = False) -> Scan:
    return Scan(b"a", b"z", is_reverse, list(listed), 5, 6)


def test_a_scan_in_order_with_all_that_was_there_passes() -> None:
    there = [wrote(b"1", 1, 0, 1, key=b"b"), wrote(b"2", 2, 0, 1, key=b"c")]
    assert list(broken_scans(history(*there, scan(b"b", b"c")))) == []
    assert list(broken_scans(history(*there, scan(b"c", b"b", is_reverse=True)))) == []


def test_a_scan_may_leave_out_what_came_or_went_meanwhile() -> None:
    coming, gone = wrote(b"1", 1, 4, 6, key=b"b"), wrote(b"2", 2, 0, 1, key=b"c")
    delete = Write(b"c", None, 2)  # of unknown outcome
    assert list(broken_scans(history(coming, gone, delete, scan()))) == []
    mortal = wrote(b"3", 3, 0, 1, key=b"d")
    mortal.expires_at_s = 9
    assert list(broken_scans(history(mortal, scan()))) == []


def test_a_scan_that_leaves_out_repeats_or_disorders_is_told() -> None:
    there = [wrote(b"1", 1, 0, 1, key=b"b"), wrote(b"2", 2, 0, 1, key=b"c")]
    for bad in scan(b"b"), scan(b"b", b"b", b"c"), scan(b"c", b"b"), scan(b"b", b"c", b"zz"):
        assert len(list(broken_scans(history(*there, bad)))) == 1


def test_a_scan_is_not_asked_about_what_it_did_not_cover() -> None:
    half = scan(b"b")
    half.high = b"c"
    assert list(broken_scans(history(wrote(b"1", 1, 0, 1, key=b"b"), wrote(b"2", 2, 0, 1, key=b"c"), half))) == []


# Timestamps.


def test_a_node_that_mints_lower_or_twice_is_told() -> None:
    assert list(timestamps_that_fell(history(wrote(b"a", 1, 0, 1), wrote(b"b", 2, 2, 3)))) == []
    assert len(list(timestamps_that_fell(history(wrote(b"a", 5, 0, 1), wrote(b"b", 2, 2, 3))))) == 1
    assert len(list(timestamps_that_fell(history(wrote(b"a", 5, 0, 3), wrote(b"b", 5, 2, 4))))) == 1


# Tables.


def created(unique_id: str, began_s: float, acked_s: float | None) -> TableChange:
    return TableChange("t", unique_id, False, began_s, acked_s)


def dropped(unique_id: str, began_s: float, acked_s: float | None) -> TableChange:
    return TableChange("t", unique_id, True, began_s, acked_s)


def test_tables_that_follow_one_another_pass() -> None:
    good = history(
        created("a", 0, 1),
        dropped("a", 2, 3),
        created("b", 4, 5),
        TableLookup("t", "b", 6, 7),
        TableLookup("t", "a", 6, 7),
    )
    assert list(broken_tables(good)) == []
    assert list(broken_tables(history(created("a", 0, 1), dropped("a", 2, None), TableLookup("t", None, 3, 4)))) == []


def test_tables_that_double_vanish_or_come_back_are_told() -> None:
    back = TableLookup("t", "a", 6, 7, is_settled=True)
    for bad in (
        history(created("a", 0, 1), created("b", 2, 3)),
        history(created("a", 0, 1), TableLookup("t", None, 2, 3)),
        history(TableLookup("t", "a", 2, 3)),
        history(created("a", 0, 1), dropped("a", 2, 3), back),
    ):
        assert len(list(broken_tables(bad))) == 1


# What the nodes hold.

NODES = [NodeId("a"), NodeId("b"), NodeId("c")]


def a_map(*, n: int = 3) -> ClusterMap:
    records = [NodeRecord(node, 0, f"{node}:1", {}, "") for node in NODES]
    first = cluster_map.found(ClusterId("c"), records, partitions=4)
    return cluster_map.with_table(first, name="t", wire="sim", n=n, definition=b"", unique_id="u")


ROW_KEY = keys.row_key(TableId(1), Token(7), b"x")


def row(micros: int) -> bytes:
    return encode_row(ROW_KEY, Row((Cell(b"value", at(micros), b"v"),)))


def states(*held: bytes | None, n: int = 3) -> list[NodeState]:
    known = a_map(n=n)
    return [
        NodeState(node, known, {} if stored is None else {ROW_KEY: stored})
        for node, stored in zip(NODES, held, strict=True)
    ]


def test_replicas_that_hold_different_bytes_are_told() -> None:
    assert list(replicas_that_differ(states(row(1), row(1), row(1)))) == []
    for held in (row(1), row(2), row(1)), (row(1), row(1), None):
        assert len(list(replicas_that_differ(states(*held)))) == 1


def test_rows_that_lie_where_they_should_not_are_told() -> None:
    assert list(rows_out_of_place(states(row(1), None, None))) == []
    assert len(list(rows_out_of_place(states(row(1), row(1), row(1), n=1)))) == 2
    other = keys.row_key(TableId(9), Token(7), b"x")
    assert len(list(rows_out_of_place([NodeState(NODES[0], a_map(), {other: row(1)})]))) == 1


def test_maps_that_differ_are_told() -> None:
    known = a_map()
    newer = cluster_map.with_table(known, name="u", wire="sim", n=3, definition=b"", unique_id="w")
    other = cluster_map.with_table(known, name="v", wire="sim", n=3, definition=b"", unique_id="x")
    assert list(maps_that_differ([NodeState(NODES[0], known, {}), NodeState(NODES[1], known, {})])) == []
    for one in known, other:
        assert len(list(maps_that_differ([NodeState(NODES[0], newer, {}), NodeState(NODES[1], one, {})]))) == 1


def test_a_write_that_fewer_hold_than_acknowledged_it_is_told() -> None:
    acked = history(wrote(b"v", 5, 0, 1, key=ROW_KEY))
    assert list(writes_too_few_hold(acked, states(row(5), row(5), None))) == []
    assert list(writes_too_few_hold(acked, states(row(5), row(6), None))) == []
    assert len(list(writes_too_few_hold(acked, states(row(5), row(4), None)))) == 1
    assert len(list(writes_too_few_hold(acked, states(row(5), row(5)[:-1] + b"w", None)))) == 1  # damaged
    deleted = history(wrote(b"v", 5, 0, 1, key=ROW_KEY), wrote(None, 6, 2, 3, key=ROW_KEY))
    assert list(writes_too_few_hold(deleted, states(None, None, None))) == []
