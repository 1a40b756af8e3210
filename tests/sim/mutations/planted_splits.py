"""Deliberate bugs in how the ring is cut finer; see `planting`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from merganser.service.expiry_index import ExpiryIndex
from merganser.service.leadership import Leadership
from merganser.service.promises import Promises
from merganser.service.tag_index import TagIndex
from merganser.service.tree_images import TreeImages
from merganser.storage.engine import Batch
from sim.mutations.planting import SPLITTING, planted

FAULTS = "splits+crashes+partitions+pauses"
ITEMS = ("promises", "linearizable", "item versions", "held", "counters")


@planted(*ITEMS, mechanism=SPLITTING, likely=9, is_soak=True, nemesis=FAULTS, workload="items")
def halves_keep_their_promises_in_memory_only(patch: pytest.MonkeyPatch) -> None:
    real = Promises.split

    def split(self: Promises, batch: Batch, factor: int) -> Callable[[], None]:
        return real(self, Batch(), factor)

    patch.setattr(Promises, "split", split)


@planted(*ITEMS, mechanism=SPLITTING, likely=25, nemesis=FAULTS, workload="items")
def leaders_go_on_under_the_old_numbers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leadership, "_forget", lambda _self: None)


@planted("hash trees", mechanism=SPLITTING, likely=3, nemesis=FAULTS)
def images_of_whole_partitions_are_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TreeImages, "forget_all", lambda *_: None)


@planted("times", "expiries", mechanism=SPLITTING, likely=5, is_soak=True, nemesis="splits", workload="expiries")
def times_stay_under_the_old_numbers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ExpiryIndex, "_split", lambda *_: lambda: None)


@planted("tag entries", mechanism=SPLITTING, likely=1, nemesis="splits", workload="tags")
def tags_stay_under_the_old_numbers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TagIndex, "_split", lambda *_: lambda: None)
