"""The index of times beside the registers of one node, through the door that every register goes through."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine

from merganser.core.cluster_map import found, with_definition, with_table, without_table
from merganser.core.expiry import AGE_S_MAX, MARGIN_S
from merganser.core.token import token_of
from merganser.model.cluster import ClusterMap, NodeRecord, Table
from merganser.model.ids import ClusterId, NodeId, PartitionId
from merganser.model.register import Content, Register, Version
from merganser.service.expiry_index import DUE_MAX, WALK_ROWS, Due, Expiring, ExpiryIndex, Place
from merganser.service.hash_trees import HashTrees
from merganser.service.topology import Topology
from merganser.storage import keys
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine
from merganser.storage.registers import encode_register

NODE = NodeRecord(NodeId("1" * 16), 1, "127.0.0.1:1")
PLAIN = with_table(
    found(ClusterId("c" * 16), [NODE], partitions=1),
    name="t",
    wire="w",
    n=1,
    definition=b"",
    unique_id="t",
    replication="leader",
)
NOW_S = 2_000_000_000


def defined(current: ClusterMap, definition: bytes) -> ClusterMap:
    return with_definition(current, before=current.tables[0], definition=definition)


def expiring(table: Table) -> Expiring | None:
    """Items of a table with a definition expire at the number in them, if there is one."""
    return Expiring(table.definition, expires_at) if table.definition else None


def expires_at(value: bytes) -> int | None:
    return int(value) if value.isdigit() else None


class Node:
    """The registers of one node, with their trees and times."""

    def __init__(self, current: ClusterMap, engine: MemoryEngine | None = None) -> None:
        self.engine = engine or MemoryEngine()
        self.topology = Topology(NODE.id, self.engine, current)
        self.index = ExpiryIndex(self.topology, self.engine, {"w": expiring})
        self.trees = HashTrees(self.topology, self.engine, admit=lambda: asyncio.sleep(0), expiries=self.index)
        self.place: Place = (current.tables[0].id, PartitionId(0))
        self._versions = 0

    def key(self, name: str) -> bytes:
        return keys.row_key(self.place[0], token_of(name.encode()), name.encode())

    def put(self, name: str, value: bytes | None) -> None:
        key = self.key(name)
        self._versions += 1
        after = encode_register(key, Register(Version(1, 1, self._versions), Content(value)))
        self.trees.put(*self.place, key, self.engine.get(key), after)

    def times(self) -> dict[bytes, int]:
        entries = self.index.entries(self.place)
        times = {entry.key: entry.at_s for entry in entries}
        assert len(times) == len(entries)
        return times

    def how(self) -> Expiring:
        how = self.index.of(self.topology.map.tables[0])
        assert how is not None
        return how

    def walk(self) -> int:
        """Make the place whole; returns how many slices that took."""
        position, slices = None, 0
        while not self.index.is_whole(self.place, self.how()):
            position, slices = self.index.walk(self.place, self.how(), position), slices + 1
        return slices


def on_a_loop(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    """Let pytest run a test that awaits."""

    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


@on_a_loop
async def test_entries_follow_the_items() -> None:
    node = Node(defined(PLAIN, b"x"))
    node.put("a", b"5")
    node.put("b", b"7")
    node.put("c", b"never")
    assert node.times() == {node.key("a"): 5, node.key("b"): 7}
    node.put("a", b"6")
    node.put("b", None)
    node.put("c", b"8")
    assert node.times() == {node.key("a"): 6, node.key("c"): 8}
    key = node.key("a")
    node.trees.write([(node.place[0], key, node.engine.get(key), None)])
    assert node.times() == {node.key("c"): 8}


@on_a_loop
async def test_a_table_whose_items_do_not_expire_has_no_entries() -> None:
    node = Node(PLAIN)
    node.put("a", b"5")
    assert node.times() == {}


@on_a_loop
async def test_what_was_there_before_is_walked_and_what_comes_meanwhile_is_not_missed() -> None:
    node = Node(PLAIN)
    for number in range(WALK_ROWS + 10):
        node.put(f"k{number}", b"%d" % (1000 + number))
    await node.topology.learn(defined(PLAIN, b"x"))
    assert node.times() == {}
    assert not node.index.is_whole(node.place, node.how())
    position = node.index.walk(node.place, node.how(), None)
    assert position is not None
    node.put("late", b"5")
    for number in range(5):
        node.put(f"k{number}", None if number % 2 else b"%d" % number)
    assert node.index.walk(node.place, node.how(), position) is None
    assert node.index.is_whole(node.place, node.how())
    expected = {node.key(f"k{number}"): 1000 + number for number in range(5, WALK_ROWS + 10)}
    assert node.times() == {**expected, node.key("late"): 5, **{node.key(f"k{n}"): n for n in (0, 2, 4)}}


@on_a_loop
async def test_the_mark_outlives_a_restart_and_not_another_beginning() -> None:
    node = Node(defined(PLAIN, b"x"))
    node.put("a", b"5")
    assert node.walk() == 1
    again = Node(node.topology.map, node.engine)
    assert again.walk() == 0
    assert again.times() == {again.key("a"): 5}
    await again.topology.learn(defined(again.topology.map, b"another"))
    assert again.walk() == 1


@on_a_loop
async def test_what_does_not_expire_any_more_or_is_dropped_leaves_nothing() -> None:
    node = Node(defined(PLAIN, b"x"))
    node.put("a", b"5")
    node.walk()
    await node.topology.learn(defined(node.topology.map, b""))
    assert node.times() == {}
    node.put("b", b"7")
    await node.topology.learn(defined(node.topology.map, b"x"))
    assert node.walk() == 1  # the mark went with the entries, and b was put without one
    assert node.times() == {node.key("a"): 5, node.key("b"): 7}
    await node.topology.learn(without_table(node.topology.map, wire="w", name="t", unique_id="t"))
    assert [key for key, _ in node.engine.scan(b"", b"\xff") if b"expir" in key] == []


@on_a_loop
async def test_what_was_dropped_while_the_node_was_away_is_forgotten_at_its_start() -> None:
    node = Node(defined(PLAIN, b"x"))
    node.put("a", b"5")
    node.walk()
    assert Node(PLAIN, node.engine).times() == {}


@on_a_loop
async def test_due_entries_come_oldest_first_a_page_at_a_time() -> None:
    node = Node(defined(PLAIN, b"x"))
    first = NOW_S - MARGIN_S - DUE_MAX - 4
    for number in range(DUE_MAX + 10):
        node.put(f"k{number}", b"%d" % (first + number))
    node.put("ancient", b"%d" % (NOW_S - AGE_S_MAX - 1))
    due = node.index.due(node.place, NOW_S)
    assert [entry.at_s for entry in due] == list(range(first, first + DUE_MAX))
    rest = node.index.due(node.place, NOW_S, due[-1])
    assert [entry.at_s for entry in rest] == list(range(first + DUE_MAX, NOW_S - MARGIN_S + 1))


@on_a_loop
async def test_an_entry_that_is_wrong_is_dropped_and_a_right_one_stays() -> None:
    node = Node(defined(PLAIN, b"x"))
    node.put("a", b"5")
    stale = Due(node.key("a"), 4)
    node.put("b", b"4")
    misplaced = next(key for key, _ in node.engine.scan(b"", b"\xff") if key.endswith(node.key("b")[4:]))
    node.engine.commit(Batch().put(misplaced[: -len(node.key("b")[4:])] + node.key("a")[4:], b""))
    assert stale in node.index.entries(node.place)
    assert not node.index.check(node.place, node.how(), stale)
    assert node.index.check(node.place, node.how(), Due(node.key("a"), 5))
    assert node.times() == {node.key("a"): 5, node.key("b"): 4}


@on_a_loop
async def test_a_damaged_item_leaves_its_entry_until_the_time_comes() -> None:
    node = Node(defined(PLAIN, b"x"))
    node.put("a", b"5")
    key = node.key("a")
    damaged = (node.engine.get(key) or b"")[:-1] + b"?"
    node.engine.commit(Batch().put(key, damaged))
    after = encode_register(key, Register(Version(1, 1, 9), Content(b"6")))
    node.trees.write([(node.place[0], key, damaged, after)])
    assert [entry.at_s for entry in node.index.entries(node.place)] == [5, 6]
    assert not node.index.check(node.place, node.how(), Due(key, 5))
    assert node.times() == {key: 6}
