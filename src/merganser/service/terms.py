"""What the data path of a leader knows of elections: `service.leadership` holds them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from merganser.model.ids import NodeId, TableId
from merganser.model.leadership import Epoch, Group
from merganser.model.register import Version


class Led(Protocol):
    """This node leads a group in an epoch: one term."""

    @property
    def group(self) -> Group:
        """What is led."""

    @property
    def epoch(self) -> Epoch:
        """Since when."""

    @property
    def replicas(self) -> tuple[NodeId, ...]:
        """The preference list, this node included."""

    @property
    def is_standing(self) -> bool:
        """False for ever once deposed."""

    @property
    def deposed(self) -> asyncio.Future[None]:
        """Done when deposed."""

    @property
    def roots(self) -> Mapping[TableId, Mapping[NodeId, int]]:
        """Of the hash trees, as those who elected this node promised; its own included."""

    def next_version(self) -> Version:
        """Return the version of the next write."""


class Leadership(Protocol):
    """Which groups this node leads, and whom it knows to lead the others."""

    quiesce: Callable[[Led, float], Awaitable[bool]]
    """Stop taking changes; true once nothing is in flight, false at a loop time if something is."""

    def known(self, group: Group) -> Epoch:
        """Return the latest epoch that this node knows of."""

    def learned(self, group: Group, epoch: Epoch) -> None:
        """Know of an epoch; whoever leads in an earlier one is deposed in this turn of the loop."""

    async def confirm(self, led: Led, *, deadline: float) -> None:
        """Return once a majority has said, asked after this call, that the epoch stands.

        Raises:
            RefusedError: it does not.
            UnavailableError: no majority answered in time.
        """

    def when_elected(self, listener: Callable[[Led], None]) -> None:
        """Call ``listener`` with each term, when it begins."""

    def when_deposed(self, listener: Callable[[Led], None]) -> None:
        """Call ``listener`` with each term, in the turn of the loop in which it ends."""
