"""The checkers of leader-based tables: each passes what is right and tells of what is wrong."""

from __future__ import annotations

import msgspec

from merganser.core.ring import Ring
from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.consistency import Need
from merganser.model.ids import ClusterId, NodeId, PartitionId, TableId
from merganser.model.leadership import Group
from merganser.model.register import Content, Intent, Register, Version
from merganser.model.transaction import Record, State
from merganser.sim.checkers.available import ELECTION_S, unanswered_requests
from merganser.sim.checkers.bank import money_made_or_lost
from merganser.sim.checkers.counters import counters_that_do_not_add_up
from merganser.sim.checkers.held import writes_too_few_hold
from merganser.sim.checkers.items import (
    glimpses_of_nothing_written,
    items_that_are_no_registers,
    lists_that_are_not_serial,
    pages_out_of_order,
    versions_that_fell,
)
from merganser.sim.checkers.leaders import groups_not_led_as_they_should, intents_that_stay, undecided_transactions
from merganser.sim.checkers.linearizable import Add, CompareAndSet, Operation, Put, Read
from merganser.sim.checkers.replicas import NodeState
from merganser.sim.checkers.serializable import Appended, Listed, Transaction
from merganser.sim.history import Failure, History, Trouble
from merganser.sim.item_history import Balances, Count, Glimpse, Heard, Increment, ItemHistory, Page
from merganser.storage import keys
from merganser.storage.registers import encode_register

NODES = tuple(NodeId(name) for name in "abcd")
ITEMS = Table(TableId(1), "t", "sim", 3, b"", "unique", "leader")
LEDGER = Table(TableId(2), "transactions", "system", 3, b"", "ledger", "leader")
MAP = ClusterMap(
    ClusterId("0" * 16),
    epoch=1,
    partitions=4,
    nodes=tuple(NodeRecord(node, number, f"{node}:1", {}, node) for number, node in enumerate(NODES, start=1)),
    owners=(1, 2, 3, 4),
    voters=(1, 2, 3),
    tables=(ITEMS, LEDGER),
)
RING = Ring(MAP)
K = keys.row_key(ITEMS.id, token_of(b"k"), b"k", b"")
REPLICAS = RING.preference_list(RING.partition_of(keys.token_in(K)), 3)
INTENT = Intent(b"t" * 16, 1, True, b"b")


def history(**lists: object) -> History:
    told = History()
    for name, records in lists.items():
        setattr(told.items, name, records)
    return told


def heard(value: bytes | None, version: int, began_s: float, ended_s: float, *, has_written: bool = False) -> Heard:
    return Heard(K, value, Version(1, 1, version), has_written, began_s, ended_s)


def page(
    *rows: tuple[bytes, bytes],
    low: bytes = b"a",
    high: bytes = b"z",
    is_reverse: bool = False,
    is_consistent: bool = True,
) -> Page:
    return Page(low, high, is_reverse, is_consistent, rows, 2.0, 3.0)


def stored(version: int, content: Content, key: bytes = K) -> bytes:
    return encode_register(key, Register(Version(1, 1, version), content))


def leading_as_they_should() -> list[NodeState]:
    groups = [Group(3, PartitionId(partition)) for partition in range(MAP.partitions)]
    first = {group: RING.preference_list(group.partition, 3)[0] for group in groups}
    return [
        NodeState(node, MAP, {}, leading=frozenset(group for group in groups if first[group] == node)) for node in NODES
    ]


def test_a_page_is_a_read_of_all_that_it_covers() -> None:
    wrote = [Operation(b"m", CompareAndSet(None, b"1"), 0, 1)]
    assert not list(items_that_are_no_registers(history(operations=wrote, pages=[page((b"m", b"1"))])))
    assert not list(items_that_are_no_registers(history(operations=wrote, pages=[page(low=b"n")])))
    assert not list(items_that_are_no_registers(history(operations=wrote, pages=[page(is_consistent=False)])))
    assert list(items_that_are_no_registers(history(operations=wrote, pages=[page()])))
    assert list(items_that_are_no_registers(history(operations=wrote, pages=[page((b"m", b"2"))])))


def test_pages_are_in_order_and_within_their_range() -> None:
    one, two = (b"b", b"1"), (b"c", b"2")
    assert not list(pages_out_of_order(history(pages=[page(), page(one, two), page(two, one, is_reverse=True)])))
    for wrong in page(two, one), page(one, one), page(one, two, is_reverse=True), page(one, low=b"c"):
        assert len(list(pages_out_of_order(history(pages=[wrong])))) == 1


def test_glimpses_are_of_what_somebody_wrote() -> None:
    operations = [
        Operation(K, Put(b"unknown"), 0),
        Operation(K, CompareAndSet(None, b"swapped"), 0, 1),
        Operation(K, Put(b"later"), 5),
        Operation(b"counter", Add(1), 0),
    ]
    for key, value, is_from_somewhere in (
        (K, None, True),
        (K, b"unknown", True),
        (K, b"swapped", True),
        (K, b"later", False),
        (K, b"invented", False),
        (b"counter", b"1", True),
        (b"counter", b"x", False),
        (b"other", b"swapped", False),
    ):
        told = list(glimpses_of_nothing_written(history(operations=operations, glimpses=[Glimpse(key, value, 2, 3)])))
        assert bool(told) != is_from_somewhere
        row = page(*(((key, value),) if value else ()), is_consistent=False)
        told = list(glimpses_of_nothing_written(history(operations=operations, pages=[row])))
        assert bool(told) != is_from_somewhere


def test_versions_do_not_fall() -> None:
    first, later = heard(b"a", 1, 0, 1, has_written=True), heard(b"b", 2, 2, 3, has_written=True)
    for good in (
        [first, later, heard(b"b", 2, 4, 5)],
        [later, first],
        [first, heard(b"b", 2, 0.5, 3), heard(b"a", 1, 0.6, 4)],
        [first, later, heard(None, 0, 4, 5)],
    ):
        assert not list(versions_that_fell(history(heard=good)))
    for wrong in (
        [first, later, heard(b"a", 1, 4, 5)],
        [first, heard(b"b", 1, 2, 3, has_written=True)],
        [first, heard(b"x", 1, 0, 9)],
        [later, heard(None, 1, 4, 5, has_written=True)],
    ):
        assert list(versions_that_fell(history(heard=wrong)))


def test_one_version_may_have_two_values_where_there_are_transactions() -> None:
    both = [heard(b"a", 1, 0, 1), heard(b"b", 1, 2, 3)]
    assert not list(versions_that_fell(history(heard=both, has_transactions=True)))


def test_counters_add_up() -> None:
    increments = [Increment(K, 1, 0, 1), Increment(K, 2, 0), Increment(K, 4, 5, 6), Increment(b"other", 8, 0, 1)]
    for number, is_right in ((0, False), (1, True), (2, True), (3, True), (4, False)):
        told = list(counters_that_do_not_add_up(history(increments=increments, counts=[Count(K, number, 2, 3)])))
        assert bool(told) != is_right


def test_money_is_neither_made_nor_lost() -> None:
    for numbers, is_of_all, is_right in (
        ((10, 20), True, True),
        ((10, 19), True, False),
        ((31, -1), True, False),
        ((5,), False, True),
        ((-1,), False, False),
        ((31,), False, False),
    ):
        look = Balances(numbers, is_of_all, 0, 1)
        assert bool(list(money_made_or_lost(history(balances=[look], bank_total=30)))) != is_right


def test_lists_are_serial() -> None:
    lost = [Transaction((Appended(K, b"1"),), 0, 1), Transaction((Listed(K, ()),), 2, 3)]
    assert list(lists_that_are_not_serial(history(transactions=lost)))
    assert not list(lists_that_are_not_serial(history(transactions=lost[:1])))


def test_a_majority_holds_what_was_acknowledged() -> None:
    told = history(heard=[heard(b"a", 5, 0, 1, has_written=True)])
    new, old = stored(5, Content(b"a")), stored(4, Content(b"z"))
    for held, is_right in (((new, new, old), True), ((new, old, None), False), ((b"damaged", new, old), False)):
        states = [NodeState(node, MAP, {K: row} if row else {}) for node, row in zip(REPLICAS, held, strict=True)]
        assert bool(list(writes_too_few_hold(told, states))) != is_right
    told.items.operations.append(Operation(K, CompareAndSet(b"a", None), 2, 3))
    assert not list(writes_too_few_hold(told, [NodeState(node, MAP, {}) for node in REPLICAS])), "a tombstone removed"


def test_a_tombstone_that_a_lock_left_behind_may_be_removed() -> None:
    """Nobody deleted the item: a transaction that locked what was not there was cancelled."""
    told = history(heard=[heard(None, 2, 1, 2)])
    assert not list(writes_too_few_hold(told, [NodeState(node, MAP, {}) for node in REPLICAS]))


def test_each_group_is_led_by_its_first_replica() -> None:
    states = leading_as_they_should()
    assert not list(groups_not_led_as_they_should(states))
    (gone,) = states[0].leading
    nobody = [msgspec.structs.replace(states[0], leading=frozenset()), *states[1:]]
    assert list(groups_not_led_as_they_should(nobody)) == [
        f"partition {gone.partition} of tables with 3 replicas is led by nobody, and {NODES[0]} should"
    ]
    both = [states[0], msgspec.structs.replace(states[1], leading=states[1].leading | {gone}), *states[2:]]
    assert len(list(groups_not_led_as_they_should(both))) == 1
    other = [nobody[0], both[1], *states[2:]]
    assert len(list(groups_not_led_as_they_should(other))) == 1


def test_no_intent_stays_and_nothing_is_undecided() -> None:
    free, locked = stored(1, Content(b"a")), stored(2, Content(b"a", INTENT))
    assert not list(intents_that_stay([NodeState(NODES[0], MAP, {K: free})]))
    assert len(list(intents_that_stay([NodeState(NODES[0], MAP, {K: locked})]))) == 1
    record_key = keys.row_key(LEDGER.id, token_of(b"id"), b"id", b"")
    for state, is_decided in ((State.BEGUN, False), (State.COMMITTED, True), (State.ABORTED, True)):
        record = msgspec.msgpack.encode(Record(state, 1, b"", (), is_kept=True))
        rows = {record_key: stored(1, Content(record), record_key)}
        assert bool(list(undecided_transactions([NodeState(NODES[0], MAP, rows)]))) != is_decided


def test_what_needs_a_leader_is_answered_once_an_election_can_be_over() -> None:
    states = [NodeState(node, MAP, {}) for node in NODES]
    (other,) = (node for node in NODES if node not in REPLICAS)

    def told(*troubles: Trouble, is_of_leader: bool = True) -> list[str]:
        of_run = History()
        of_run.troubles = list(troubles)
        of_run.failures.append(Failure("read", K, other, Need(2, 2), 20.0, 22.0, is_of_leader))
        return list(unanswered_requests(of_run, states))

    down = frozenset(REPLICAS[:1])
    assert told()
    assert told(Trouble(down, 20.0 - ELECTION_S - 1)), "the two others have had time to elect one of them"
    assert not told(Trouble(down, 20.0 - ELECTION_S + 1))
    assert not told(Trouble(down, 0.0, 20.0 - ELECTION_S + 1)), "the first replica may just be taking over"
    assert not told(Trouble(frozenset(REPLICAS[:2]), 0.0)), "there is no majority"
    assert not told(Trouble(down, 0.0, is_partial=True)), "the first replica may lead, and not hear who asks"
    assert told(Trouble(down, 18.0), is_of_leader=False)


def test_records_are_counted() -> None:
    items = ItemHistory()
    items.heard = [heard(b"a", 1, 0, 1, has_written=True), heard(b"a", 1, 2, 3)]
    items.operations = [Operation(K, Put(b"b"), 0), Operation(K, Read(b"a"), 2, 3)]
    items.transactions = [Transaction((Appended(K, b"1"),), 0, 1), Transaction((Listed(K, ()),), 2, 3)]
    items.glimpses = [Glimpse(K, None, 0, 1)]
    assert (items.acked(), items.unknown(), items.reads()) == (1, 1, 2)
