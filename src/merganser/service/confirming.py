"""Make sure that a leader still leads before it answers a read: ask its replicas, for all reads that wait at once.

    confirm --> waiting --a round begins--> asked --most replicas say so--> return
                  ^                           | |
                  +---no majority: again------+ +--a later epoch, or deposed--> refused

An answer counts only for those who waited when it was asked for: what was promised since may have been used by
another leader before they came. One round is under way at a time, so the more reads there are, the fewer messages each
of them costs. It is over when all is settled, or after `ROUND_S`; answers that come later still count. A term whose
replicas were slow keeps nobody else waiting: rounds do not wait for it, until they answer in time again.

Source: Ongaro 2014, "Consensus: Bridging Theory and Practice", §6.4 (ReadIndex).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from merganser.core.leadership import majority
from merganser.model.errors import RefusedError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.leader_messages import NOT_LEADING, Confirm, Standing
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Reply
from merganser.service.asking import Asker, error_of
from merganser.service.topology import Topology

ROUND_S = 0.02  # some ten times what an answer takes
AGAIN_S = 0.2  # after which a question, or its answer, is taken for lost
ASK_TIMEOUT_S = 1.0


class Term(Protocol):
    """What is to be confirmed (`service.leadership.Led`)."""

    group: Group
    epoch: Epoch
    replicas: tuple[NodeId, ...]
    is_standing: bool


class _Claim(msgspec.Struct):
    """What a round asks about one term."""

    waiters: list[asyncio.Future[bool]]
    missing: int
    """Answers until a majority has said that it stands, this node included."""


_Round = dict[Term, _Claim]
"""What is asked for together; what is settled is taken out."""


class Confirmations:
    """The checks under way; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        *,
        known: Callable[[Group], Epoch],
        learned: Callable[[Group, Epoch], None],
    ) -> None:
        """Ask through ``asker``; ``known`` returns the latest epoch of a group, ``learned`` is told of later ones."""
        self._topology = topology
        self._asker = asker
        self._known = known
        self._learned = learned
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Term, list[asyncio.Future[bool]]] = {}
        self._under_way: _Round | None = None
        self._asked: list[_Round] = []
        """Rounds that are not all settled, the one under way among them."""
        self._slow: dict[Term, None] = {}
        self._is_begun = self._is_closed = False

    async def confirm(self, term: Term, *, deadline: float) -> None:
        """Return once most replicas of ``term``, asked after this call, have said that it stands.

        Raises:
            RefusedError: it does not.
            UnavailableError: they did not answer by ``deadline``, loop time.
        """
        self._check(term)
        if len(term.replicas) == 1:
            return
        waiter: asyncio.Future[bool] = self._loop.create_future()
        self._waiting.setdefault(term, []).append(waiter)
        self._begin_soon()
        timer = self._loop.call_at(deadline, _answer, (waiter,), False)
        try:
            is_answered = await waiter
        finally:
            timer.cancel()
        self._check(term)
        if not is_answered:
            raise UnavailableError(
                f"most replicas of partition {term.group.partition} do not say whether node {term.epoch.leader} leads"
            )

    def deposed(self, term: Term) -> None:
        """Refuse all who wait for ``term``."""
        self._slow.pop(term, None)
        _answer(self._waiting.pop(term, ()), True)
        for asked in self._asked:
            claim = asked.pop(term, None)
            if claim is not None:
                _answer(claim.waiters, True)

    def close(self) -> None:
        """Begin no more rounds."""
        self._is_closed = True

    def _check(self, term: Term) -> None:
        if not term.is_standing:
            raise RefusedError(
                NOT_LEADING,
                f"node {term.epoch.leader} leads partition {term.group.partition} no more",
                epoch=self._known(term.group),
            )

    # Rounds

    def _begin_soon(self) -> None:
        """Begin a round with all who come in this turn of the loop, unless one is under way."""
        if self._under_way is None and not self._is_begun and not self._is_closed:
            self._is_begun = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._is_begun = False
        if not self._waiting:
            return
        begun: _Round = {
            term: _Claim(waiters, majority(len(term.replicas)) - 1) for term, waiters in self._waiting.items()
        }
        self._waiting = {}
        self._under_way = begun
        self._asked.append(begun)
        for node in dict.fromkeys(node for term in begun for node in term.replicas):
            if node != self._topology.node:
                self._ask(node, [term for term in begun if node in term.replicas], begun)
        self._loop.call_later(ROUND_S, self._round_is_long, begun)
        self._loop.call_later(AGAIN_S, self._ask_again, begun)
        self._look(begun)

    def _ask(self, node: NodeId, terms: list[Term], begun: _Round) -> None:
        claims = tuple((term.group.n, term.group.partition, term.epoch) for term in terms)
        asked = self._asker.ask(node, Confirm(self._topology.map.epoch, claims), timeout_s=ASK_TIMEOUT_S)
        asked.add_done_callback(lambda ended: self._count(ended, terms, begun))

    def _count(self, ended: asyncio.Future[Reply], terms: list[Term], begun: _Round) -> None:
        reply = None if error_of(ended) is not None else ended.result()
        if not isinstance(reply, Standing) or len(reply.promised) != len(terms):
            return
        for term, promised in zip(terms, reply.promised, strict=True):
            if promised > term.epoch:
                self._learned(term.group, promised)
            claim = begun.get(term)
            if claim is not None and promised == term.epoch:
                claim.missing -= 1
                if claim.missing == 0:
                    del begun[term]
                    self._slow.pop(term, None)
                    _answer(claim.waiters, True)
        self._look(begun)

    def _look(self, begun: _Round) -> None:
        """End ``begun``, as far as it is settled."""
        if not begun:
            self._asked = [asked for asked in self._asked if asked is not begun]
        if begun is self._under_way and all(term in self._slow for term in begun):
            self._under_way = None
            if self._waiting:
                self._begin_soon()

    def _round_is_long(self, begun: _Round) -> None:
        self._slow.update(dict.fromkeys(begun))
        self._look(begun)

    def _ask_again(self, begun: _Round) -> None:
        for term, claim in begun.items():
            left = [waiter for waiter in claim.waiters if not waiter.done()]
            if left:
                self._waiting.setdefault(term, []).extend(left)
        self._asked = [asked for asked in self._asked if asked is not begun]
        if self._waiting:
            self._begin_soon()


def _answer(waiters: Sequence[asyncio.Future[bool]], is_answered: bool) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(is_answered)
