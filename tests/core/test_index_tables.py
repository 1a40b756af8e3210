"""Global indexes in the cluster map: made, changed and dropped together with the tables of their entries."""

from __future__ import annotations

import msgspec
import pytest

from merganser.core import cluster_map as maps
from merganser.core.index_tables import is_index
from merganser.model.cluster import ClusterMap, Index, IndexState, NodeRecord, Table
from merganser.model.errors import CorruptionError, IndexExistsError, TableChangedError, TableNotFoundError
from merganser.model.ids import ClusterId, NodeId, TableId
from merganser.model.index import IndexRequest

BASE = TableId(1)


@pytest.fixture
def empty() -> ClusterMap:
    nodes = [NodeRecord(id=NodeId(name), number=0, peer_address=f"{name}:7000") for name in "abc"]
    return maps.found(ClusterId("00112233aabbccdd"), nodes, 8)


def with_users(current: ClusterMap, *indexes: str) -> ClusterMap:
    requests = [IndexRequest(name, name.encode()) for name in indexes]
    return maps.with_table(
        current,
        name="users",
        wire="dynamodb",
        n=2,
        definition=b"{}",
        unique_id="first",
        replication="leader",
        indexes=requests,
    )


def users(current: ClusterMap) -> Table:
    table = maps.table_named(current, "dynamodb", "users")
    assert table is not None
    return table


def states(current: ClusterMap) -> dict[str, IndexState]:
    return {index.name: index.state for index in users(current).indexes}


def added(
    current: ClusterMap, name: str, *, before: Table | None = None, unique_id: str = "second", definition: bytes = b"{}"
) -> ClusterMap:
    return maps.with_index(
        current,
        before=before or users(current),
        index=IndexRequest(name),
        unique_id=unique_id,
        definition=definition,
    )


def dropped(current: ClusterMap, index: TableId, before: Table, definition: bytes = b"{}") -> ClusterMap:
    return maps.with_index_deleting(current, before=before, index=index, definition=definition)


def test_table_is_made_with_a_table_for_the_entries_of_each_index(empty: ClusterMap) -> None:
    made = with_users(empty, "by_name", "by_age")
    maps.check(made)
    base, *of_entries = made.tables
    assert [index.table for index in base.indexes] == [table.id for table in of_entries]
    assert [index.definition for index in base.indexes] == [b"by_name", b"by_age"]
    assert all(table.has_leaders and table.n == base.n and is_index(table) for table in of_entries)
    assert states(made) == {"by_name": "active", "by_age": "active"}
    assert not is_index(base)
    assert made.next_table_id == 4


def test_tables_of_entries_are_unknown_to_the_wire_of_their_base(empty: ClusterMap) -> None:
    made = with_users(empty, "by_name")
    assert [table.name for table in made.tables if table.wire == "dynamodb"] == ["users"]


def test_dropped_table_takes_its_indexes_along(empty: ClusterMap) -> None:
    made = with_users(empty, "by_name")
    assert maps.without_table(made, wire="dynamodb", name="users", unique_id="first").tables == ()


def test_index_that_is_added_is_creating_then_active_then_deleting_then_gone(empty: ClusterMap) -> None:
    current = added(with_users(empty), "late")
    maps.check(current)
    (index,) = users(current).indexes
    assert states(current) == {"late": "creating"}
    current = maps.with_index_state(current, table=BASE, index=index.table, state="active")
    assert states(current) == {"late": "active"}
    current = maps.with_index_state(current, table=BASE, index=index.table, state="deleting")
    assert states(current) == {"late": "deleting"}
    current = maps.without_index(current, table=BASE, index=index.table)
    maps.check(current)
    assert [table.name for table in current.tables] == ["users"]
    assert users(current).indexes == ()


def test_repeated_change_of_an_index_changes_nothing(empty: ClusterMap) -> None:
    current = added(with_users(empty), "late")
    index = users(current).indexes[0].table
    assert added(current, "late") is current
    assert maps.with_index_state(current, table=BASE, index=index, state="creating") is current
    gone = maps.without_index(current, table=BASE, index=index)
    assert maps.without_index(gone, table=BASE, index=index) is gone
    assert maps.with_index_state(gone, table=BASE, index=index, state="active") is gone


def test_what_is_asked_of_the_indexes_of_a_table_that_is_gone_finds_no_table(empty: ClusterMap) -> None:
    current = with_users(empty, "by_name")
    before = users(current)
    gone = maps.without_table(current, wire="dynamodb", name="users", unique_id="first")
    with pytest.raises(TableNotFoundError, match="users"):
        added(gone, "x", before=before)
    with pytest.raises(TableNotFoundError, match="users"):
        dropped(gone, before.indexes[0].table, before)
    with pytest.raises(TableNotFoundError, match="users"):
        maps.with_definition(gone, before=before, definition=b"new")


def test_index_comes_and_goes_with_the_definition_that_was_checked_with_it_or_not_at_all(empty: ClusterMap) -> None:
    before = users(with_users(empty))
    current = added(with_users(empty), "late", definition=b"both")
    assert current.epoch == with_users(empty).epoch + 1
    known = users(current)
    assert (known.definition, states(current)) == (b"both", {"late": "creating"})
    assert added(current, "late", before=before, definition=b"both") is current, "it is a repeated request"
    (index,) = known.indexes
    after = dropped(current, index.table, known, b"less")
    assert (users(after).definition, states(after)) == (b"less", {"late": "deleting"})
    assert dropped(after, index.table, known, b"less") is after
    with pytest.raises(TableChangedError):
        dropped(after, index.table, known, b"another")
    gone = maps.without_index(after, table=BASE, index=index.table)
    assert dropped(gone, index.table, known, b"less") is gone


def test_definition_and_indexes_are_changed_only_together_with_what_they_were_checked_against(
    empty: ClusterMap,
) -> None:
    earlier = with_users(empty, "by_name")
    before = users(earlier)
    redefined = maps.with_definition(earlier, before=before, definition=b"new")
    grown = added(earlier, "late")
    with pytest.raises(TableChangedError, match="users"):
        added(redefined, "late", before=before)
    with pytest.raises(TableChangedError, match="users"):
        dropped(redefined, before.indexes[0].table, before)
    with pytest.raises(TableChangedError, match="users"):
        maps.with_definition(grown, before=before, definition=b"new")


def test_index_that_was_asked_for_when_the_table_had_other_indexes_does_not_come_or_go(empty: ClusterMap) -> None:
    earlier = added(with_users(empty), "late")
    before = users(earlier)
    current = maps.with_index_state(earlier, table=BASE, index=before.indexes[0].table, state="active")
    with pytest.raises(TableChangedError):
        added(current, "x", before=before, unique_id="y")
    with pytest.raises(TableChangedError):
        dropped(current, before.indexes[0].table, before)


def test_index_that_is_being_deleted_never_becomes_active(empty: ClusterMap) -> None:
    current = added(with_users(empty), "late")
    index = users(current).indexes[0].table
    current = maps.with_index_state(current, table=BASE, index=index, state="deleting")
    assert maps.with_index_state(current, table=BASE, index=index, state="active") is current


def test_second_index_of_the_name_is_refused(empty: ClusterMap) -> None:
    with pytest.raises(IndexExistsError, match="'by_name'"):
        added(with_users(empty, "by_name"), "by_name")


def test_index_made_anew_under_its_name_has_another_table(empty: ClusterMap) -> None:
    current = added(with_users(empty), "late")
    index = users(current).indexes[0].table
    current = added(maps.without_index(current, table=BASE, index=index), "late", unique_id="third")
    maps.check(current)
    assert users(current).indexes[0].table > index


def test_map_of_before_there_were_indexes_is_understood(empty: ClusterMap) -> None:
    old = msgspec.to_builtins(with_users(empty))
    for table in old["tables"]:
        del table["indexes"]
    assert msgspec.convert(old, ClusterMap) == with_users(empty)


@pytest.mark.parametrize(
    ("indexes", "flaw"),
    [
        ((Index("lost", TableId(9), b"", "u"),), "no table of its own"),
        ((Index("one", TableId(2), b"", "u"), Index("one", TableId(2), b"", "u")), "there twice"),
        ((Index("base", BASE, b"", "u"),), "no table of its own"),
    ],
)
def test_map_with_damaged_indexes_is_refused(empty: ClusterMap, indexes: tuple[Index, ...], flaw: str) -> None:
    made = with_users(empty, "one")
    damaged = msgspec.structs.replace(
        made, tables=(msgspec.structs.replace(users(made), indexes=indexes), *made.tables[1:])
    )
    with pytest.raises(CorruptionError, match=flaw):
        maps.check(damaged)
