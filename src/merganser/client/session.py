"""One client's dealings with a cluster: where it is, whom to ask, what to do when that fails.

::

    request --> replica of the key, nearest first --answer--> done
                    |                                  a newer epoch is told: fetch the ring, on the side
                    |--nothing was done--> the next candidate; after the last a pause, a look at the ring, and again
                    |--a read is slow (p95)--> the next candidate as well, the first answer counts
                    |--a read is lost--> the next candidate
                    |--a write is lost--> UnknownOutcomeError: never sent twice
                    +--a write that is done once however often it is sent, is lost--> the next candidate

Everything ends by the deadline of the request. The seeds are asked where the cluster is at first, and when nobody whom
the client knows can be reached. Nodes that are members no more are let go some time after: what they still do for this
client they may end.

The transport is a seam (`net.transport.Outgoing`): the same session runs over TCP and in the simulator.
"""

from __future__ import annotations

import asyncio
import random as randomness
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from merganser.client.errors import ClosedError, did_nothing, unavailable, unknown, wrong_request
from merganser.client.routes import Routes
from merganser.core.nearness import Nearness
from merganser.model.client_messages import ClientGet, ClientGetCrdt, ClientReply, ClientRequest, FetchRing
from merganser.model.errors import CorruptionError, MerganserError, PeerLostError, UnavailableError, UnknownOutcomeError
from merganser.model.ids import NodeId
from merganser.model.messages import MapIs, Reply
from merganser.net.transport import Outgoing

FETCH_TIMEOUT_S = 1.0
HEDGE_S_MIN, HEDGE_S_MAX = 0.002, 0.1
"""Below, a hedge saves nothing that anybody could notice; above, a node on a healthy network would have answered."""
PAUSE_S_MIN, PAUSE_S_MAX = 0.02, 0.5
NODE_SHARE = 0.9
"""Of the time that is left: what the node may take. The rest is for its answer, which says more than no answer does."""
HALVED_S_MIN = 0.2
"""Less time than that is given to one node, not to two in turn."""
LET_GO_S = 10.0
GRACE_S = 1e-4  # a timer may go off a little early

Coordinated = Literal["replica", "any"]
Make = Callable[[int], ClientRequest]
"""Makes the request of how long the node may take, in milliseconds."""
_Asked = tuple[ClientReply | None, MerganserError | None, int]
"""What came of asking one candidate after the other: the reply, the last failure, and how many were asked."""


class Session:
    """See the module's docstring. Made, used and closed on the event loop."""

    def __init__(
        self,
        seeds: Sequence[str],
        transport: Outgoing,
        *,
        rng: randomness.Random,
        on_cluster: Callable[[str], None] = lambda _cluster_id: None,
        coordinated: Coordinated = "replica",
    ) -> None:
        """Find the cluster by ``seeds``, host:port of the peer ports of some members.

        Args:
            seeds: one is enough, as long as it is up when the client begins.
            transport: to the nodes.
            rng: spreads what would come at once.
            on_cluster: told the id of the cluster, once.
            coordinated: by a replica of the key, or by any node, as behind a load balancer: to compare.
        """
        self.routes = Routes()
        self.nearness = Nearness()
        self.hedges = 0
        """Reads that were sent twice."""
        self.repeats = 0
        """Writes that were sent once more though they may have been done, as doing them again does nothing."""
        self._seeds = list(seeds)
        self._transport = transport
        self._rng = rng
        self._on_cluster = on_cluster
        self._coordinated = coordinated
        self._loop = asyncio.get_running_loop()
        self._refreshing: asyncio.Task[bool] | None = None
        self._problem = "nobody was asked"
        self._known: dict[NodeId, str] = {}
        self._letting_go: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def open(self, deadline: float) -> None:
        """Return when the cluster is known.

        Raises:
            UnavailableError: no seed has told where it is by ``deadline`` (loop time).
        """
        pause_s = PAUSE_S_MIN
        while self.routes.map is None:
            await self._refresh(deadline)
            if self.routes.map is None:
                if self._loop.time() + pause_s >= deadline:
                    raise UnavailableError(
                        f"no node of {', '.join(self._seeds)} has told where its cluster is: {self._problem}"
                    )
                await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                pause_s = min(2 * pause_s, PAUSE_S_MAX)

    async def close(self) -> None:
        """Stop what runs on the side; the transport belongs to the caller."""
        self._is_closed = True
        if self._letting_go is not None:
            self._letting_go.cancel()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait({self._refreshing})

    async def read(
        self, table: str, key: bytes | None, make: Make, *, deadline: float, patience_s: float | None = None
    ) -> ClientReply:
        """Ask what changes nothing, of several nodes if need be.

        Args:
            table: name of the table, for the way to it.
            key: whose replicas are nearest to the answer; None: any node is.
            make: makes the request.
            deadline: loop time.
            patience_s: after which another node is asked as well; None: what the one usually takes at most.

        Raises:
            RequestError: it cannot be answered as it is.
            UnavailableError: no node has answered by ``deadline``.
        """

        def race(candidates: Sequence[NodeId], last: MerganserError | None) -> Awaitable[_Asked]:
            return _Race(self, candidates, make, deadline, patience_s, last).run()

        return await self._rounds(table, key, race, deadline, is_write=False)

    async def write(
        self, table: str, key: bytes | None, make: Make, *, deadline: float, is_repeatable: bool = False
    ) -> ClientReply:
        """Ask what changes something; it is sent again only if nothing was done.

        Args:
            table: name of the table, for the way to it.
            key: whose replicas are asked; None: any node is.
            make: makes the request.
            deadline: loop time.
            is_repeatable: nodes see to it that it is done once, so that it may be sent again whatever has become of it.

        Raises:
            RequestError: it cannot be done as it is; nothing was written.
            UnavailableError: no node has taken it by ``deadline``; nothing was written.
            UnknownOutcomeError: a node has taken it and not said that it is done.
        """
        writing = _Writing(self, make, deadline, is_repeatable=is_repeatable)
        try:
            return await self._rounds(table, key, writing.run, deadline, is_write=True)
        except MerganserError as error:
            if writing.lost is None or isinstance(error, UnknownOutcomeError):
                raise
            raise unknown(writing.lost if isinstance(error, UnavailableError) else error) from None

    async def refresh(self, deadline: float) -> None:
        """Ask for the newest map; returns when somebody has answered, or ``deadline`` is over."""
        await self._refresh(deadline)

    # Rounds over the candidates.

    async def _rounds(
        self,
        table: str,
        key: bytes | None,
        ask: Callable[[Sequence[NodeId], MerganserError | None], Awaitable[_Asked]],
        deadline: float,
        *,
        is_write: bool,
    ) -> ClientReply:
        tried, pause_s = 0, PAUSE_S_MIN
        last: MerganserError | None = None
        while True:
            if self._is_closed:
                raise ClosedError("the client is closed: open another one")
            candidates = self._candidates(table, key)
            reply, last, asked = await ask(candidates, last)
            tried += asked
            if reply is not None:
                return reply
            left_s = deadline - self._loop.time()
            if left_s <= pause_s:
                raise unavailable(tried, last, is_write=is_write)
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, PAUSE_S_MAX)
            await self._refresh(min(deadline, self._loop.time() + FETCH_TIMEOUT_S))

    def _candidates(self, table: str, key: bytes | None) -> list[NodeId]:
        if self._coordinated == "any":
            drawn = list(self.routes.addresses)
            self._rng.shuffle(drawn)
            return drawn
        return self.routes.candidates(table, key, self.nearness, self._loop.time())

    # One request.

    def send(self, node: NodeId, make: Make, deadline: float) -> asyncio.Future[ClientReply]:
        """Ask ``node`` once, and take note of how that ends."""
        began = self._loop.time()
        left_s = deadline - began
        node_ms = min(max(1, int(left_s * NODE_SHARE * 1000)), 60_000)
        self.nearness.sent(node)
        request = make(node_ms)
        is_get = type(request) in (
            ClientGet,
            ClientGetCrdt,
        )  # the others take longer, and are not what is hedged by the percentile
        answer = self._transport.request(node, request, timeout_s=left_s)
        answer.add_done_callback(lambda ended: self._note(node, began, ended, is_get=is_get))
        return answer  # type: ignore[return-value]  # what clients ask is answered by what clients are told

    def _note(self, node: NodeId, began: float, ended: asyncio.Future[Reply], *, is_get: bool) -> None:
        now = self._loop.time()
        error = None if ended.cancelled() else ended.exception()
        if (
            ended.cancelled()
            or isinstance(error, PeerLostError)
            or (isinstance(error, MerganserError) and did_nothing(error))
        ):
            self.nearness.failed(node, now)
            return
        self.nearness.answered(node, now - began, is_sampled=is_get)
        if error is None:
            epoch = getattr(ended.result(), "map_epoch", 0)
            if epoch > self.routes.epoch and not self._is_closed:
                self._refresh_soon(node)

    def hedge_s(self, node: NodeId) -> float:
        """Return after how long another is asked beside ``node``."""
        p95_s = self.nearness.latencies.p95_s(node)
        return HEDGE_S_MAX if p95_s is None else min(max(p95_s, HEDGE_S_MIN), HEDGE_S_MAX)

    # The ring.

    async def _refresh(self, deadline: float) -> None:
        task = self._refresh_soon(None)
        left_s = deadline - self._loop.time()
        if left_s > 0:
            await asyncio.wait({task}, timeout=left_s)

    def _refresh_soon(self, node: NodeId | None) -> asyncio.Task[bool]:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = self._loop.create_task(self._fetch(node))
        return self._refreshing

    async def _fetch(self, teller: NodeId | None) -> bool:
        """Ask ``teller``, those known, and the seeds, until one answers; tells whether one did."""
        nearest = self.nearness.order(list(self.routes.addresses), self._loop.time())[:3]
        for node in ([teller] if teller is not None else []) + nearest:
            if await self._learn_from(self._transport.request(node, self._question(), timeout_s=FETCH_TIMEOUT_S)):
                return True
        seeds = list(self._seeds)
        self._rng.shuffle(seeds)
        for seed in seeds:
            if await self._learn_from(self._transport.introduce(seed, self._question(), timeout_s=FETCH_TIMEOUT_S)):
                return True
        return False

    def _question(self) -> FetchRing:
        return FetchRing(self.routes.epoch)

    async def _learn_from(self, answer: asyncio.Future[Reply]) -> bool:
        try:
            told = await answer
            if not isinstance(told, MapIs):
                raise CorruptionError(f"a {type(told).__name__} is no answer to a client that asks for the ring")
            if told.map is not None and self.routes.learn(told.map):
                self._know_nodes()
        except MerganserError as error:
            self._problem = str(error)
            return False
        return True

    def _know_nodes(self) -> None:
        assert self.routes.map is not None
        self._on_cluster(self.routes.map.cluster_id)
        self._transport.set_peers({**self._known, **self.routes.addresses})
        self._known = {**self._known, **self.routes.addresses}
        if self._known.keys() != self.routes.addresses.keys() and self._letting_go is None:
            self._letting_go = self._loop.call_later(LET_GO_S, self._let_go)

    def _let_go(self) -> None:
        self._letting_go = None
        self._known = dict(self.routes.addresses)
        self._transport.set_peers(self._known)
        self.nearness.forget_others(self._known)


class _Writing:
    """A write, sent to one candidate, and to the next if nothing was done, or if it may be sent twice."""

    def __init__(self, session: Session, make: Make, deadline: float, *, is_repeatable: bool) -> None:
        self.lost: MerganserError | None = None
        """Why it may have been done by a node that has not said so."""
        self._session = session
        self._make = make
        self._deadline = deadline
        self._is_repeatable = is_repeatable
        self._loop = asyncio.get_running_loop()

    async def run(self, candidates: Sequence[NodeId], last: MerganserError | None) -> _Asked:
        """Ask one candidate after the other.

        Raises:
            RequestError: the request is wrong.
            UnknownOutcomeError: it may have been done, and is not to be sent again.
        """
        for asked, node in enumerate(candidates):
            if self._loop.time() >= self._deadline:
                return None, last, asked
            self._session.repeats += self.lost is not None
            try:
                return await self._session.send(node, self._make, self._until()), None, asked + 1
            except MerganserError as error:
                last = error
                wrong = wrong_request(error)
                if wrong is not None:
                    raise wrong from None
                if not did_nothing(error):
                    self.lost = error
                    if not self._is_repeatable:
                        raise unknown(error) from None
        return None, last, len(candidates)

    def _until(self) -> float:
        """Return how long the next candidate may take: half of what is left, if others can be asked after it."""
        left_s = self._deadline - self._loop.time()
        return self._deadline - left_s / 2 if self._is_repeatable and left_s > HALVED_S_MIN else self._deadline


class _Race:
    """A read, sent to one candidate, and to the next when that fails or is slow: the first answer counts."""

    def __init__(
        self,
        session: Session,
        candidates: Sequence[NodeId],
        make: Make,
        deadline: float,
        patience_s: float | None,
        last: MerganserError | None,
    ) -> None:
        self._patience_s = patience_s
        self._session = session
        self._left = list(reversed(candidates))
        self._make = make
        self._deadline = deadline
        self._last = last
        self._asked = 0
        self._loop = asyncio.get_running_loop()
        self._running: set[asyncio.Future[ClientReply]] = set()

    async def run(self) -> _Asked:
        """Ask until one answers, or none is left."""
        self._session.nearness.earn_hedge()
        hedge_at = self._begin()
        while self._running and self._loop.time() < self._deadline:
            wake_at = min(hedge_at, self._deadline)
            ended, self._running = await asyncio.wait(
                self._running,
                timeout=max(0.0, wake_at - self._loop.time()) + GRACE_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for one in ended:
                reply = self._reply_of(one)
                if reply is not None:
                    return reply, None, self._asked
            if not self._running:
                hedge_at = self._begin()
            elif self._loop.time() >= hedge_at:
                hedge_at = self._hedge()
        return None, self._last, self._asked

    def _begin(self) -> float:
        """Ask the next candidate, if there is one; returns when to ask another one beside it."""
        if not self._left or self._loop.time() >= self._deadline:
            return self._deadline
        node = self._left.pop()
        self._asked += 1
        self._running.add(self._session.send(node, self._make, self._deadline))
        patience_s = self._session.hedge_s(node) if self._patience_s is None else self._patience_s
        return self._loop.time() + patience_s

    def _hedge(self) -> float:
        if not self._left or not self._session.nearness.may_hedge():
            return self._deadline
        self._session.hedges += 1
        return self._begin()

    def _reply_of(self, ended: asyncio.Future[ClientReply]) -> ClientReply | None:
        """Return the reply, None if there is none.

        Raises:
            RequestError: the request is wrong.
        """
        error = PeerLostError("the request was cancelled") if ended.cancelled() else ended.exception()
        if error is None:
            return ended.result()
        if not isinstance(error, MerganserError):
            raise error
        wrong = wrong_request(error)
        if wrong is not None:
            raise wrong from None
        self._last = error
        return None
