"""How a leader makes another replica equal to itself in one item: as it is, or under a new version.

A replica that lacks the item, or holds an earlier version, is sent what the leader holds. One that holds a later
version, left behind by an earlier leader and met by nobody since, is outranked: the item is written anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, cast

from merganser.model.cluster import Table
from merganser.model.errors import (
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId
from merganser.model.leader_messages import NOT_LEADING, Replicate, Touch
from merganser.model.messages import Found, Reply
from merganser.model.register import Register
from merganser.service.asking import Asker
from merganser.service.first_touches import TOUCH_S, Adopting, Term
from merganser.service.topology import Topology
from merganser.storage.registers import version_of


class Knowing(Protocol):
    """Whoever makes items known."""

    def __call__(self, term: Term, table: Table, key: bytes) -> Awaitable[tuple[bytes | None, Register]]:
        """Return what is stored of a known item, and its head, as of the turn of the loop in which this returns."""


class Settlement:
    """Brings replicas up, item by item; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        *,
        known: Knowing,
        propose: Adopting,
        learned: Callable[[Term, RefusedError], None],
    ) -> None:
        """Settle as the leader of `terms`.

        Args:
            topology: knows the map.
            asker: asks peers.
            known: makes items known.
            propose: writes them anew.
            learned: told of a refusal that names a later epoch.
        """
        self._topology = topology
        self._asker = asker
        self._known = known
        self._propose = propose
        self._learned = learned

    async def settle(self, term: Term, table: Table, key: bytes, node: NodeId) -> None:
        """Let ``node`` hold the item as this node does, durably.

        Raises:
            UnavailableError: it, or too many others, did not answer.
            UnknownOutcomeError: deposed before it was done.
        """
        await self._known(term, table, key)
        theirs = await self._held_by(term, table, key, node)
        stored, head = await self._known(term, table, key)
        if theirs == stored:
            return
        if theirs is not None and version_of(key, theirs) >= head.version:
            proposal = self._propose(term, table, key, head.content, before=stored, is_intact=True)
            if not await proposal.ended():
                raise UnknownOutcomeError("another node leads by now, or a majority is away")
            stored, _ = await self._known(term, table, key)
        if stored is None:  # dropped meanwhile, and `theirs` was earlier than that
            return
        copy = Replicate(self._topology.map.epoch, table.id, key, term.epoch, stored, term.led.generation)
        await self._ask(term, node, copy)

    async def _held_by(self, term: Term, table: Table, key: bytes, node: NodeId) -> bytes | None:
        question = Touch(self._topology.map.epoch, table.id, key, term.epoch)
        return cast("Found", await self._ask(term, node, question)).row

    async def _ask(self, term: Term, node: NodeId, request: Touch | Replicate) -> Reply:
        try:
            return await self._asker.ask(node, request, timeout_s=TOUCH_S)
        except RefusedError as error:
            if error.code == NOT_LEADING:
                self._learned(term, error)
            raise
        except (PeerUnreachableError, PeerLostError) as error:
            raise UnavailableError(f"node {node} does not answer: {error}") from None
