"""Whatever leaders and messages do, an entry ends as what its item shows: if each rule is kept, and only then."""

from __future__ import annotations

import pytest

from core.index_walk import Delivery, Late, Rules, Walk
from merganser.core.indexing import Shown
from merganser.model.register import Version

WALKS, STEPS = 3_000, 100


def test_an_entry_ends_as_what_its_item_shows() -> None:
    wrong = [seed for seed in range(WALKS) if not Walk(seed, Rules()).run(STEPS)]
    assert wrong == []


@pytest.mark.parametrize(
    "broken",
    [
        Rules(confirms_after_noting=False),
        Rules(keeps_markers_of_its_epoch=False),
        Rules(looks_at_versions=False),
    ],
    ids=["epoch not confirmed", "marker removed at once", "version ignored"],
)
def test_a_walk_finds_a_stale_entry_if_a_rule_is_broken(broken: Rules) -> None:
    assert any(not Walk(seed, broken).run(STEPS) for seed in range(10 * WALKS))


def test_message_to_an_epoch_that_was_only_heard_of_would_bring_an_entry_back() -> None:
    """Too rare to be met by chance; why `service.index_epochs` hears a leader before it names its epoch."""
    walk = Walk(0, Rules())
    there = Shown(Version(1, 1, 1), b"there")
    walk.head = there
    walk.index.bid = walk.index.promised[0] = 2  # heard of, and not won yet
    late = Late(2, there)
    assert walk.base.stands(1)  # confirmed after that
    walk.base.promised, walk.base.elected = [2, 2, 1], [1, 2]
    walk.deliveries.append(Delivery(2, there, there))
    walk.write()
    walk.apply(Late(1, walk.head))  # chosen by the two that follow the last leader of the entry
    assert (walk.is_behind, walk.shows) == (False, None)
    walk.index.elected.append(2)
    walk.touch(2, asked=(1, 2))
    walk.remove()
    walk.apply(late)
    assert walk.head.value is None
    assert walk.shows == b"there"
