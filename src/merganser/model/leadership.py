"""Who leads which replicas, and since when: words of the leader-based protocol (design §5)."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from merganser.model.ids import PartitionId


class Group(NamedTuple):
    """The replicas of one partition for tables of one rule: what elects a leader, for all those tables at once.

    All tables of one rule have the same preference list, so one promise holds for their rows of the partition.
    """

    rule: int
    """N of tables that ask for nothing else, or the number of a policy (`Table.rule`)."""
    partition: PartitionId


class Epoch(NamedTuple):
    """One term of one leader; compares by number first. No two leaders share an epoch, as its leader is part of it."""

    number: int
    """From 1; 0 before the first election."""
    leader: int
    """The leader's number in the cluster map."""


NO_EPOCH = Epoch(0, 0)
"""Lower than every elected leader's."""


class LeadershipView(msgspec.Struct, frozen=True):
    """Who leads, as this node sees it; for operators. Terms are counted since its start."""

    groups_led: int
    groups_without_leader: int
    """Of those it holds."""
    terms_begun: int
    terms_ended: int
