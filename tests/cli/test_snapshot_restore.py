"""What a restore asks a cluster for: the tables as they were."""

from __future__ import annotations

import msgspec

from merganser.cli.snapshot_restore import _wanted
from merganser.model.cluster import ClusterMap, Index, Table
from merganser.model.ids import ClusterId, TableId
from merganser.model.policy import FIRST_POLICY, Policy
from merganser.model.snapshot import WantedIndex, WantedTable


def test_a_table_is_wanted_as_it_was_but_for_what_belongs_to_its_cluster() -> None:
    table = Table(
        id=TableId(7),
        name="orders",
        wire="dynamodb",
        n=3,
        definition=b"definition",
        unique_id="u",
        replication="leader",
        indexes=(
            Index("kept", TableId(8), b"one", "u"),
            Index("going", TableId(9), b"two", "u", state="deleting"),
            Index("coming", TableId(10), b"three", "u", state="creating"),
        ),
    )
    assert _wanted(map_of(table), table, "old-", "0123456789abcdef0123") == WantedTable(
        wire="dynamodb",
        name="old-orders",
        hidden_name="restoring/0123456789abcdef/old-orders",
        n=3,
        replication="leader",
        definition=b"definition",
        indexes=(WantedIndex("kept", b"one"), WantedIndex("coming", b"three")),
    )


def test_every_property_of_a_table_is_carried_over() -> None:
    of_its_cluster = {"id", "unique_id", "formerly", "changed"}
    assert set(Table.__struct_fields__) - of_its_cluster == set(WantedTable.__struct_fields__) - {"hidden_name"}
    siblings = Table(TableId(1), "t", "w", 3, b"", "u", conflicts="siblings")
    wanted = carried(map_of(siblings), siblings)
    assert (wanted.conflicts, wanted.policy) == ("siblings", None)


def test_a_table_is_restored_with_its_policy() -> None:
    policy = Policy(5, replicas=(("eu", 3), ("us", 2)))
    bound = Table(TableId(1), "t", "w", 5, b"", "u", policy=FIRST_POLICY)
    assert carried(map_of(bound, (FIRST_POLICY, policy)), bound).policy == policy


def map_of(table: Table, *policies: tuple[int, Policy]) -> ClusterMap:
    return ClusterMap(ClusterId("c"), 1, 1, (), (), (), tables=(table,), policies=policies)


def carried(current: ClusterMap, table: Table) -> WantedTable:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(_wanted(current, table, "", "0" * 64)), type=WantedTable)
