"""Make sure that a leader still leads before it answers a read: ask its replicas, for all reads that wait at once.

    confirm --> waiting --a round begins--> asked --most replicas say so--> return
                  ^                           | |
                  +---no majority: again------+ +--a later epoch, or deposed--> refused

An answer counts only for those who waited when it was asked for: what was promised since may have been used by
another leader before they came. One round is under way at a time, so the more reads there are, the fewer messages each
of them costs. Only as many replicas are asked as a majority takes, those that were prompt of late; if one of them does
not say so, or not within `ROUND_S`, the others are asked as well.

A round is over when all is settled, or after `ROUND_S`; answers that come later still count. A term whose replicas were
slow keeps nobody else waiting: rounds do not wait for it, until they answer in time again.

Source: Ongaro 2014, "Consensus: Bridging Theory and Practice", §6.4 (ReadIndex).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from merganser.model.errors import RefusedError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.leader_messages import NOT_LEADING, Confirm, Standing
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Reply
from merganser.service.asking import Asker, error_of
from merganser.service.topology import Topology

ROUND_S = 0.02  # some ten times what an answer takes
_TICK_S = ROUND_S / 4
AGAIN_S = 0.2  # after which a question, or its answer, is taken for lost
ASK_TIMEOUT_S = 1.0
LATE_S = 2.0
"""Others are asked before who has not answered in a round: once in that time one round finds out whether it does."""


class Term(Protocol):
    """What is to be confirmed (`service.leadership.Led`)."""

    group: Group
    epoch: Epoch
    quorum: int
    replicas: tuple[NodeId, ...]
    is_standing: bool


_Waiters = dict[asyncio.Future[bool], float]
"""Who waits, and until when by loop time. That is looked at when they are asked for again: a timer for each costs more
than all the rest of a round."""


class _Claim:
    """What a round asks about one term."""

    __slots__ = ("asked", "missing", "unasked", "waiters")

    def __init__(self, waiters: _Waiters, missing: int, others: list[NodeId]) -> None:
        """Ask as many of ``others``, the other replicas in that order, as are ``missing``."""
        self.waiters = waiters
        self.missing = missing
        """Answers until a majority has said that it stands, this node included."""
        self.asked = others[:missing]
        self.unasked = others[missing:]


class _Round:
    """What is asked for together."""

    __slots__ = ("began_at", "claims", "is_long")

    def __init__(self, began_at: float) -> None:
        self.began_at = began_at
        self.claims: dict[Term, _Claim] = {}
        """What is settled is taken out."""
        self.is_long = False


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
        self._waiting: dict[Term, _Waiters] = {}
        self._under_way: _Round | None = None
        self._asked: list[_Round] = []
        """Rounds that are not all settled, the one under way among them."""
        self._slow: dict[Term, None] = {}
        self._late_until: dict[NodeId, float] = {}
        self._ticker: asyncio.TimerHandle | None = None
        self._is_begun = self._is_closed = False

    async def confirm(self, term: Term, *, deadline: float) -> None:
        """Return once most replicas of ``term``, asked after this call, have said that it stands.

        Raises:
            RefusedError: it does not.
            UnavailableError: they did not answer by ``deadline``, loop time, or within `AGAIN_S` after it.
        """
        if len(term.replicas) == 1:
            self._check(term)
            return
        confirmed = self.begin(term, deadline=deadline)
        await confirmed
        self.check(term, confirmed)

    def begin(self, term: Term, *, deadline: float) -> asyncio.Future[bool]:
        """Begin as `confirm`, of a term with other replicas; `check` says what it has come to when it is done.

        Raises:
            RefusedError: it does not stand.
        """
        self._check(term)
        waiter: asyncio.Future[bool] = self._loop.create_future()
        waiting = self._waiting.get(term)
        if waiting is None:
            self._waiting[term] = {waiter: deadline}
        else:
            waiting[waiter] = deadline
        self._begin_soon()
        return waiter

    def check(self, term: Term, confirmed: asyncio.Future[bool]) -> None:
        """Return if ``term`` is confirmed; raises as `confirm`."""
        self._check(term)
        if confirmed.cancelled() or not confirmed.result():
            raise UnavailableError(
                f"most replicas of partition {term.group.partition} do not say whether node {term.epoch.leader} leads"
            )

    def deposed(self, term: Term) -> None:
        """Refuse all who wait for ``term``."""
        self._slow.pop(term, None)
        _answer(self._waiting.pop(term, ()), True)
        for asked in self._asked:
            claim = asked.claims.pop(term, None)
            if claim is not None:
                _answer(claim.waiters, True)

    def regrouped(self, term: Term) -> None:
        """Ask anew for all who wait for ``term``: it has other replicas now, and answers so far do not count."""
        self._slow.pop(term, None)
        for asked in self._asked:
            claim = asked.claims.pop(term, None)
            if claim is not None:
                self._waiting.setdefault(term, {}).update(claim.waiters)
        for asked in list(self._asked):
            self._look(asked)
        if self._waiting:
            self._begin_soon()

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
        order = self._promptest_first({node for term in self._waiting for node in term.replicas})
        begun = _Round(self._loop.time())
        to_ask: dict[NodeId, list[Term]] = {}
        for term, waiters in self._waiting.items():
            missing = term.quorum - 1
            others = [node for node in order if node in term.replicas]
            begun.claims[term] = _Claim(waiters, missing, others)
            for node in others[:missing]:
                to_ask.setdefault(node, []).append(term)
        self._waiting = {}
        self._under_way = begun
        self._asked.append(begun)
        for node, terms in to_ask.items():
            self._ask(node, terms, begun)
        if self._ticker is None:
            self._ticker = self._loop.call_later(_TICK_S, self._tick)
        self._look(begun)

    def _tick(self) -> None:
        """Look after the rounds that are not settled; nearly all are before anybody looks."""
        now = self._loop.time()
        for begun in self._asked:
            if now >= begun.began_at + ROUND_S and not begun.is_long:
                begun.is_long = True
                self._round_is_long(begun)
            if now >= begun.began_at + AGAIN_S:  # after a stall of the loop both at once, or it would stay under way
                self._ask_again(begun)
        self._ticker = self._loop.call_later(_TICK_S, self._tick) if self._asked else None

    def _promptest_first(self, nodes: Iterable[NodeId]) -> list[NodeId]:
        """Order the other ones of ``nodes``; of equals those that come after this one, so that each is asked by one."""
        me, now = self._topology.node, self._loop.time()
        clockwise = sorted((node for node in nodes if node != me), key=lambda node: (node < me, node))
        nearest = self._asker.nearest_first(clockwise)
        return sorted(nearest, key=lambda node: self._late_until.get(node, 0.0) > now)

    def _ask_the_others(self, terms: Iterable[Term], begun: _Round) -> None:
        """Ask about those of ``terms`` that are not settled who has not been asked."""
        to_ask: dict[NodeId, list[Term]] = {}
        for term in terms:
            claim = begun.claims.get(term)
            if claim is not None:
                for node in claim.unasked:
                    to_ask.setdefault(node, []).append(term)
                claim.asked += claim.unasked
                claim.unasked = []
        for node, some in to_ask.items():
            self._ask(node, some, begun)

    def _ask(self, node: NodeId, terms: list[Term], begun: _Round) -> None:
        claims = tuple((term.group.rule, term.group.partition, term.epoch) for term in terms)
        asked = self._asker.ask(node, Confirm(self._topology.map.epoch, claims), timeout_s=ASK_TIMEOUT_S)
        asked.add_done_callback(lambda ended: self._count(ended, terms, begun))

    def _count(self, ended: asyncio.Future[Reply], terms: list[Term], begun: _Round) -> None:
        reply = None if error_of(ended) is not None else ended.result()
        if not isinstance(reply, Standing) or len(reply.promised) != len(terms):
            self._ask_the_others(terms, begun)
            return
        doubtful: list[Term] = []
        for term, promised in zip(terms, reply.promised, strict=True):
            if promised > term.epoch and term.is_standing:  # else its group may have another number by now
                self._learned(term.group, promised)
            claim = begun.claims.get(term)
            if claim is not None and promised == term.epoch:
                claim.missing -= 1
                if claim.missing == 0:
                    del begun.claims[term]
                    self._slow.pop(term, None)
                    _answer(claim.waiters, True)
            elif claim is not None:
                doubtful.append(term)
        if doubtful:
            self._ask_the_others(doubtful, begun)
        self._look(begun)

    def _look(self, begun: _Round) -> None:
        """End ``begun``, as far as it is settled."""
        if not begun.claims:
            self._asked = [asked for asked in self._asked if asked is not begun]
        if begun is self._under_way and all(term in self._slow for term in begun.claims):
            self._under_way = None
            if self._waiting:
                self._begin_soon()

    def _round_is_long(self, begun: _Round) -> None:
        late_until = self._loop.time() + LATE_S
        for claim in begun.claims.values():
            self._late_until.update(dict.fromkeys(claim.asked, late_until))
        self._ask_the_others(list(begun.claims), begun)
        self._slow.update(dict.fromkeys(begun.claims))
        self._look(begun)

    def _ask_again(self, begun: _Round) -> None:
        now = self._loop.time()
        for term, claim in begun.claims.items():
            left = {waiter: deadline for waiter, deadline in claim.waiters.items() if not waiter.done()}
            late = [waiter for waiter, deadline in left.items() if deadline <= now]
            _answer(late, False)
            for waiter in late:
                del left[waiter]
            if left:
                self._waiting.setdefault(term, {}).update(left)
        self._asked = [asked for asked in self._asked if asked is not begun]
        if self._waiting:
            self._begin_soon()


def _answer(waiters: Iterable[asyncio.Future[bool]], is_answered: bool) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(is_answered)
