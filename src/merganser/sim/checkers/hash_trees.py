"""The hash tree of each partition that a node holds equals one that is built from its rows.

Whoever keeps a tree up write by write, and over crashes, must come to what counting all rows comes to. A damaged row
adds nothing; a partition without a tree is told as well, because replicas cannot compare it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from merganser.core.hash_tree import HashTree, fingerprint, seed_of, twig_at, twig_shift
from merganser.core.ring import Ring
from merganser.model.errors import CorruptionError
from merganser.model.ids import PartitionId, TableId
from merganser.sim.checkers.replicas import NodeState
from merganser.storage import keys
from merganser.storage.values import check_row

Place = tuple[TableId, PartitionId]


def trees_that_are_wrong(states: Sequence[NodeState]) -> Iterator[str]:
    """Yield a sentence for each partition whose tree is missing, or does not tell what its node holds."""
    for state in states:
        ring = Ring(state.map)
        rebuilt = _rebuilt(state, ring)
        for table in state.map.tables:
            for partition in map(PartitionId, range(ring.partitions)):
                if not ring.holds(state.node, partition, table.rule):
                    continue
                kept = state.trees.get((table.id, partition))
                named = f"{state.node} of partition {partition} of table {table.id}"
                if kept is None:
                    yield f"there is no hash tree at {named}"
                elif not HashTree.unpack(kept).agrees_with(rebuilt.get((table.id, partition)) or _empty()):
                    yield f"the hash tree at {named} is not that of its rows"


def _rebuilt(state: NodeState, ring: Ring) -> dict[Place, HashTree]:
    seeds = {table.id: seed_of(table.unique_id) for table in state.map.tables}
    shift = twig_shift(ring.partitions)
    trees: dict[Place, HashTree] = {}
    for key, stored in state.rows.items():
        seed, token = seeds.get(keys.table_in(key)), keys.token_in(key)
        if seed is not None and _is_intact(key, stored):
            place = keys.table_in(key), ring.partition_of(token)
            tree = trees.get(place)
            if tree is None:
                tree = trees[place] = _empty()
            tree.toggle(twig_at(token, shift), fingerprint(key, stored, seed))
    return trees


def _empty() -> HashTree:
    tree = HashTree()
    tree.begin_twigs()
    return tree


def _is_intact(key: bytes, stored: bytes) -> bool:
    try:
        check_row(key, stored)
    except CorruptionError:
        return False
    return True
