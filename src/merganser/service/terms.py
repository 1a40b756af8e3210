"""A term of this node as the leader of a group (`service.leadership`)."""

from __future__ import annotations

import asyncio

from merganser.model.holders import Holders
from merganser.model.ids import NodeId
from merganser.model.leadership import Epoch, Group
from merganser.model.register import Version
from merganser.service.campaigning import Roots


class Led:
    """One term of this node as the leader of a group."""

    __slots__ = (
        "deposed",
        "epoch",
        "generation",
        "group",
        "is_standing",
        "meets",
        "next",
        "placed",
        "quorum",
        "replicas",
        "roots",
        "sequence",
        "serving",
    )

    def __init__(self, group: Group, epoch: Epoch, holders: Holders, placed: int, roots: Roots) -> None:
        """Begin the term."""
        self.group = group
        self.epoch = epoch
        self.are(holders, placed)
        self.roots = roots
        """Of the hash trees of the replicas that promised, before anything was written in this epoch."""
        self.is_standing = True
        """False for ever once deposed."""
        self.deposed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sequence = 0
        """Of the last write."""
        self.generation = 0
        """Of what is sent to replicas: raised when tombstones are dropped (`service.tombstones`)."""

    def are(self, holders: Holders, placed: int) -> None:
        """Take the replicas of the group as they are since the map of epoch ``placed``."""
        self.replicas = holders.members
        """The preference list, this node included."""
        self.serving, self.next = holders.serving, holders.next
        """Those of them who serve, and who will: most of both have to hold a write."""
        self.quorum = holders.quorum
        """So many of them hold every write, whichever they are."""
        self.meets = holders.meets
        """How many of them meet all by whom one was held."""
        self.placed = placed

    def is_of(self, holders: Holders) -> bool:
        """Tell whether these are the replicas that it knows of."""
        return (holders.serving, holders.next) == (self.serving, self.next)

    def followers(self, leader: NodeId) -> list[NodeId]:
        """Return the replicas other than ``leader``, which is this node."""
        return [node for node in self.replicas if node != leader]

    def next_version(self) -> Version:
        """Return the version of the next write; the caller makes it."""
        self.sequence += 1
        number, leader = self.epoch
        return Version(number, leader, self.sequence)
