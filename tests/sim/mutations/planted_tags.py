"""Deliberate bugs in the index of tags and in queries by tag; see `planting`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

from merganser.core import tags
from merganser.core.tags import MergedTags, TagPage
from merganser.model.cluster import Table
from merganser.model.consistency import ReadLevel
from merganser.model.contents import Tag
from merganser.model.ids import NodeId
from merganser.model.row import Row
from merganser.service.tag_index import Operations, Place, TagIndex
from merganser.service.tag_queries import Cover, TagQueries
from merganser.storage.values import decode_row
from sim.mutations.planting import TAGS, planted


@planted("tag entries", "tags", mechanism=TAGS, workload="tags", nemesis="none")
def tags_of_the_newest_sibling_alone(patch: pytest.MonkeyPatch) -> None:
    real = tags.tags_of

    def tags_of(row: Row | None, now_s: int | None = None) -> set[Tag]:
        if row is None or not row.cells:
            return set()
        return real(Row((max(row.cells, key=lambda cell: cell.written_at),), row.deleted_at, row.context), now_s)

    patch.setattr(tags, "tags_of", tags_of)


@planted("tag entries", mechanism=TAGS, likely=1, workload="tags", nemesis="none")
def entries_of_what_was_replaced_stay(patch: pytest.MonkeyPatch) -> None:
    real = TagIndex.changes

    def changes(index: TagIndex, *args: Any, **options: Any) -> Operations:
        return [one for one in real(index, *args, **options) if one[-1] is not None]

    patch.setattr(TagIndex, "changes", changes)


@planted("tags", mechanism=TAGS, likely=1, workload="tags", nemesis="partitions")
def one_replica_of_each_partition_is_asked(patch: pytest.MonkeyPatch) -> None:
    real = TagQueries._cover

    def cover(queries: TagQueries, table: Table, level: ReadLevel, failed: Mapping[NodeId, BaseException]) -> Cover:
        return {partition: nodes[:1] for partition, nodes in real(queries, table, level, failed).items()}

    patch.setattr(TagQueries, "_cover", cover)


@planted("tags", mechanism=TAGS, likely=1, workload="tags", nemesis="partitions")
def what_one_replica_lacks_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    """What any replica tells of is found: tags that a put has taken away come back."""
    patch.setattr(tags, "_is_doubtful", lambda _told, _asked: False)


@planted("tags", mechanism=TAGS, likely=5, workload="tags", nemesis="none")
def merged_page_reaches_as_far_as_the_longest(patch: pytest.MonkeyPatch) -> None:
    real = tags.merged

    def merged(pages: Mapping[NodeId, TagPage], asked: Callable[[bytes], Collection[NodeId]], most: int) -> MergedTags:
        stops = [page.stopped_at for page in pages.values() if page.stopped_at is not None]
        reach = max(stops) if len(stops) == len(pages) else None
        return real({node: TagPage(page.entries, reach) for node, page in pages.items()}, asked, most)

    patch.setattr(tags, "merged", merged)


@planted("tags", mechanism=TAGS, workload="tags", nemesis="none")
def next_page_begins_after_the_first_row_left(patch: pytest.MonkeyPatch) -> None:
    real = tags.merged

    def merged(pages: Mapping[NodeId, TagPage], asked: Callable[[bytes], Collection[NodeId]], most: int) -> MergedTags:
        found, resume = real(pages, asked, most)
        return MergedTags(found, None if resume is None else resume + b"\x00")

    patch.setattr(tags, "merged", merged)


@planted("tag entries", "tags", mechanism=TAGS, likely=2, workload="tags", seeds_max=60)
def entries_of_a_damaged_row_are_forgotten_and_not_made_anew(patch: pytest.MonkeyPatch) -> None:
    def walk(index: TagIndex, place: Place, _start: bytes | None) -> None:
        index._broken.pop(place, None)

    patch.setattr(TagIndex, "_walk", walk)


@planted("tag entries", mechanism=TAGS, workload="tags", nemesis="moves", seeds_max=60)
def entries_stay_where_a_partition_was(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TagIndex, "forget", lambda _index, _place, _batch: None)


@planted("tag entries", mechanism=TAGS, likely=1, workload="tags", nemesis="none")
def a_second_sibling_brings_no_entries(patch: pytest.MonkeyPatch) -> None:
    real = TagIndex.changes

    def changes(index: TagIndex, place: Place, key: bytes, *stored: bytes | None, **options: Any) -> Operations:
        before, after = stored
        is_merge = before is not None and after is not None and len(decode_row(key, after).cells) > 1
        return [] if is_merge else real(index, place, key, before, after, **options)

    patch.setattr(TagIndex, "changes", changes)
