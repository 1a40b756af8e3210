"""Ask the leader of a group, whoever that is by now.

This node asks whom it believes to be the leader (`Leadership.known`), names the epoch, and learns from each refusal.
Whom to ask next, and what follows from each failure, is `core.leader_search`'s to say. Nobody but the leader of exactly
that epoch does anything, so who leads nothing can be asked in vain, and whatever was not sent, refused, or lost on the
way to another node is tried again with the next leader::

    looking --asks the leader of the epoch--> answered
       ^ |                                       lost, a change: it may be done
       | +-- refused, not sent, lost elsewhere      |
       +------ nothing is done                      v
                                  insisting: the same request, of the same leader, in the same epoch, only
                                     | answered           | anything else
                                     v                    v
                                  answered            outcome unknown

Insisting is safe because a leader does a request once, by its id. With another leader it would not be: the change may
be adopted there late, and would be done twice. So the client is told that the outcome is unknown.

Source: design §5; docs/internals/leader.md.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Final, NoReturn, Protocol

import msgspec

from merganser.core.leader_search import Course, Failure, LeaderSearch, course
from merganser.model.cluster import Table
from merganser.model.errors import (
    InvariantError,
    MerganserError,
    OverloadedError,
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    RequestError,
    TransactionConflictError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId
from merganser.model.leader_messages import NOT_LEADING, TRANSACTION_CONFLICT, Change
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Reply, Request
from merganser.net.deadlines import Deadlines
from merganser.net.transport import Traffic, refusal_code
from merganser.service.asking import Asker, error_of, is_overload, wrote_nothing
from merganser.service.replica import NO_SUCH_TABLE, NOT_A_REPLICA
from merganser.service.shortfall import Shortfall, reasons, unavailable
from merganser.service.topology import Topology
from merganser.storage import keys

PATIENCE_S: Final = 3.0
"""How long a leader is looked for. A take-over takes about one second; who waits longer keeps others out."""
LOOK_S: Final = 0.25
"""How often a request that waits for a leader looks, and asks around, whether another has been elected; who is not the
leader should answer faster than that."""
INSIST_S: Final = 1.0  # a broken connection is mended within that, or the node is down and another takes over
INSIST_PAUSE_S: Final = 0.05

_REQUEST_CODE: Final = refusal_code(RequestError())


class PartitionCutError(UnavailableError):
    """The ring was cut finer while the leader of a partition was asked: there is no such partition any more."""


class Leaders(Protocol):
    """What this node knows of who leads."""

    def known(self, group: Group) -> Epoch:
        """Return the latest epoch of ``group`` that this node has heard of."""

    def learned(self, group: Group, epoch: Epoch) -> None:
        """Take note of an epoch that a refusal named."""

    def is_silent(self, number: int) -> bool:
        """Tell whether a node has sent no pulse for a second, and should have."""

    def vouches(self, group: Group, epoch: Epoch) -> bool:
        """Tell whether this node's word counts, and is that just ``epoch`` stands."""


class Errand:
    """One request to the leader of a group."""

    __slots__ = (
        "deadline",
        "errors",
        "give_up_at",
        "group",
        "has_waited",
        "key",
        "partitions",
        "search",
        "table",
        "traffic",
    )

    def __init__(
        self,
        table: Table,
        group: Group,
        *,
        partitions: int,
        now: float,
        deadline: float,
        key: bytes | None = None,
        traffic: Traffic = Traffic.DATA,
    ) -> None:
        """Begin it at ``now``, to be given up at ``deadline`` at the latest, in loop time.

        ``partitions`` is the number of those that ``group`` is one of; ``key``, if it is of one key, tells whose group
        it is once there are more.
        """
        self.table = table
        self.group = group
        self.partitions = partitions
        self.key = key
        self.deadline = deadline
        self.give_up_at = min(deadline, now + PATIENCE_S)
        self.traffic = traffic
        self.search = LeaderSearch()
        self.errors: dict[NodeId, BaseException] = {}
        self.has_waited = False
        """For an election: it says nothing about how busy this node is."""


class LeaderAsking:
    """This node as one that asks leaders; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        leaders: Leaders,
        *,
        rng: random.Random,
        catch_up: Callable[[NodeId], Awaitable[None]],
    ) -> None:
        """Ask whom ``leaders`` knows; ``catch_up`` fetches a newer map."""
        self._topology = topology
        self._asker = asker
        self._leaders = leaders
        self._rng = rng
        self._catch_up = catch_up
        self._shortfall = Shortfall(topology, asker, catch_up=catch_up)
        self._loop = asyncio.get_running_loop()
        self._asked_around: dict[Group, float] = {}
        """Until when it is not to be done again."""
        self._lookings: dict[int, _Looking] = {}
        self._last_looking = 0
        self._looks = Deadlines(self._loop, self._look)

    async def ask(self, errand: Errand, question_in: Callable[[Epoch], Request], *, is_read: bool) -> Reply:
        """Return the leader's answer to the question that is asked in its epoch.

        Args:
            errand: fresh.
            question_in: returns the question as it is asked in an epoch, with an id of its own if it is a change.
            is_read: it does no harm when it is repeated.

        Raises:
            RequestError: it makes no sense, or a transaction holds the item; nothing is done.
            TableNotFoundError: the table was dropped meanwhile.
            UnavailableError: no leader was found, or it could not do it; nothing is done.
            UnknownOutcomeError: it is no read, and may be done, now or later.
        """
        while True:
            if not self._is_current(errand):
                self._follow(errand)
            replicas = self._topology.ring.preference_list(errand.group.partition, errand.group.rule)
            epoch = self._leaders.known(errand.group)
            leader = self._topology.node_of(epoch.leader)
            if leader not in replicas:
                leader = None
            node = errand.search.next(epoch, leader, partial(self._others, replicas))
            if node is None:
                await self._pause(errand)
                continue
            map_epoch, question = self._topology.map.epoch, question_in(epoch)
            answer = await self._answer(errand, node, epoch, question, is_leader=node == leader)
            if not isinstance(answer, BaseException):
                return answer
            errand.errors[node] = answer
            what_next = course(_failure(answer), is_read=is_read, is_leader=node == leader)
            if what_next is Course.INSIST:
                return await self._insist(errand, node, epoch, question)
            if what_next is Course.GIVE_UP:
                raise _unknown(node, answer)
            await self._learn(errand, node, answer, map_epoch)
            if what_next is Course.TELL:
                raise _for_clients(answer)

    def _is_current(self, errand: Errand) -> bool:
        """Tell whether the group is still what the table has there, by the ring and by its policy."""
        topology = self._topology
        is_uncut = errand.partitions == topology.ring.partitions
        return is_uncut and errand.group.rule == topology.rule_of(errand.table)

    def _follow(self, errand: Errand) -> None:
        """Go on with the group that the key is of since the ring was cut, or the table has another policy.

        Raises:
            PartitionCutError: it is of more than one key; nothing is done.
        """
        ring, rule = self._topology.ring, self._topology.rule_of(errand.table)
        if errand.key is not None:
            partition = ring.partition_of(keys.token_in(errand.key))
        elif errand.partitions == ring.partitions:
            partition = errand.group.partition
        else:
            raise PartitionCutError(
                f"partition {errand.group.partition} was cut meanwhile; nothing was done, try again"
            )
        errand.group = Group(rule, partition)
        errand.partitions = ring.partitions
        errand.search = LeaderSearch()

    def _heard_of(self, errand: Errand, epoch: Epoch) -> None:
        if self._is_current(errand):
            self._leaders.learned(errand.group, epoch)

    def _others(self, replicas: Iterable[NodeId]) -> Sequence[NodeId]:
        """Return who may know more than this node, best first."""
        return self._asker.nearest_first([node for node in replicas if node != self._asker.node])

    async def _answer(
        self, errand: Errand, node: NodeId, epoch: Epoch, question: Request, *, is_leader: bool
    ) -> Reply | BaseException:
        """Return the answer of ``node``, or how it failed; lost also if another leader is elected meanwhile."""
        timeout_s = errand.deadline - self._loop.time()
        if not is_leader and timeout_s > LOOK_S:
            timeout_s = LOOK_S
        if timeout_s <= 0:
            return PeerUnreachableError("no time was left to ask")
        if is_leader and self._leaders.is_silent(epoch.leader):
            # stopped, or the link is cut: the outcome would be unknown
            return PeerUnreachableError(f"node {node} has not been heard for a second, it was not asked")
        looking = self._look_at(_Looking(errand, node, epoch, question)) if is_leader else None
        try:
            if node == self._asker.node:
                return await self._asker.ask_here(question)
            answer = self._asker.ask(node, question, timeout_s=timeout_s, traffic=errand.traffic)
            if looking is not None:
                looking.at = answer
            return await answer
        except asyncio.CancelledError:
            if looking is None or looking.given_up is None or looking.is_cancelled_by_others():
                raise
            return looking.given_up
        except InvariantError:
            raise
        except MerganserError as error:
            return error
        finally:
            if looking is not None:
                del self._lookings[looking.number]
                looking.due.discard(looking.number)

    def _look_at(self, looking: _Looking) -> _Looking:
        """Look every `LOOK_S`, and at its deadline, at a leader that is asked, until it has answered."""
        self._last_looking += 1
        looking.number = self._last_looking
        self._lookings[looking.number] = looking
        self._look_later(looking)
        return looking

    def _look_later(self, looking: _Looking) -> None:
        left_s = looking.errand.deadline - self._loop.time()
        looking.due = self._looks.add(looking.number, left_s if 0.0 < left_s < LOOK_S else LOOK_S)

    def _look(self, number: int) -> None:
        """See whether a leader that has not answered for another `LOOK_S` still leads, as far as is known."""
        looking = self._lookings[number]
        errand, node = looking.errand, looking.node
        self._look_later(looking)
        if looking.has_been_silent:  # for two looks: a busy leader takes longer than one, too
            self._ask_around(errand, node, looking.question)
        looking.has_been_silent = True
        if looking.at is None:  # of this node, which hears at once that it leads no more
            if self._loop.time() >= errand.deadline:
                looking.give_up(PeerLostError("the answer did not come in time"))
        elif looking.is_superseded:  # for as long as it should take to say so itself
            errand.has_waited = True
            looking.give_up(PeerLostError(f"node {node} does not answer, and leads no more"))
        looking.is_superseded = self._leaders.known(errand.group) > looking.epoch

    def _ask_around(self, errand: Errand, silent: NodeId, question: Request) -> None:
        """Hear from the other replicas whether they know of a later epoch than the one of ``question``.

        This node may share no replicas with the next leader, and would hear of it from nobody. The others do nothing:
        they do not lead in that epoch, and never will. All requests that wait share what one has asked.
        """
        now = self._loop.time()
        if now < self._asked_around.get(errand.group, 0.0):
            return
        self._asked_around[errand.group] = now + LOOK_S
        if isinstance(question, Change):
            question = msgspec.structs.replace(question, payload=b"")
        replicas = self._topology.ring.preference_list(errand.group.partition, errand.group.rule)
        for node in replicas:
            if node not in (silent, self._asker.node):
                answer = self._asker.ask(node, question, timeout_s=LOOK_S)
                answer.add_done_callback(partial(self._hear, errand))

    def _hear(self, errand: Errand, ended: asyncio.Future[Reply]) -> None:
        error = error_of(ended)
        if not isinstance(error, RefusedError) or error.code != NOT_LEADING:
            return
        if error.map_epoch <= self._topology.map.epoch:  # else it may speak of another group
            self._heard_of(errand, error.epoch)

    async def _learn(self, errand: Errand, node: NodeId, error: BaseException, map_epoch: int) -> None:
        """Learn from a failure, after which nothing is done, of a question that named ``map_epoch``.

        Raises:
            TableNotFoundError: the table was dropped meanwhile.
        """
        if isinstance(error, RefusedError):
            if error.code == NOT_LEADING:
                if error.map_epoch > self._topology.map.epoch:  # by which it may speak of another group
                    await self._catch_up(node)
                self._heard_of(errand, error.epoch)
            elif error.code == NO_SUCH_TABLE:
                await self._shortfall.raise_if_dropped(errand.table, {node: error}, map_epoch)
            elif error.code == NOT_A_REPLICA and error.map_epoch > self._topology.map.epoch:
                await self._catch_up(node)
        elif isinstance(error, PeerLostError):
            self._asker.note_silence(node)

    async def _insist(self, errand: Errand, leader: NodeId, epoch: Epoch, question: Request) -> Reply:
        """Return the answer to a change that may be done, if the leader that may have done it can still tell.

        Raises:
            UnknownOutcomeError: it cannot.
        """
        until = min(errand.deadline, self._loop.time() + INSIST_S)
        while self._leaders.known(errand.group) == epoch and self._loop.time() < until:
            errand.has_waited = True
            await asyncio.sleep(INSIST_PAUSE_S * self._rng.uniform(0.5, 1.0))
            answer = await self._answer(errand, leader, epoch, question, is_leader=True)
            if not isinstance(answer, BaseException):
                return answer
            errand.errors[leader] = answer
            if course(_failure(answer), is_read=False, is_leader=True, is_insisting=True) is not Course.INSIST:
                break
        lost = errand.errors[leader]
        if isinstance(lost, RefusedError) and lost.code == NOT_LEADING:
            self._heard_of(errand, lost.epoch)
        raise _unknown(leader, lost)

    async def _pause(self, errand: Errand) -> None:
        """Wait for somebody to be elected.

        Raises:
            UnavailableError: that takes too long.
        """
        now = self._loop.time()
        if now >= errand.give_up_at:
            self._give_up(errand)
        errand.has_waited = True
        pause_s = errand.search.pause_s() * self._rng.uniform(0.5, 1.0)
        await asyncio.sleep(min(pause_s, errand.give_up_at - now))

    def _give_up(self, errand: Errand) -> NoReturn:
        raise unavailable(
            f"no leader was found for partition {errand.group.partition}: {reasons(errand.errors)}; "
            "nothing was done, try again",
            errand.errors,
        )


def _failure(error: BaseException) -> Failure:
    code = error.code if isinstance(error, RefusedError) else None
    if code == NOT_LEADING:
        return Failure.NOT_LEADING
    if code in (TRANSACTION_CONFLICT, _REQUEST_CODE) or isinstance(error, RequestError):
        return Failure.OF_REQUEST
    if is_overload(error):
        return Failure.BUSY
    if isinstance(error, PeerUnreachableError):
        return Failure.NOT_SENT
    if wrote_nothing(error):
        return Failure.UNDONE
    return Failure.LOST if isinstance(error, PeerLostError) else Failure.UNKNOWN


def _for_clients(error: BaseException) -> BaseException:
    if is_overload(error):
        return OverloadedError(f"the leader of the item has too much to do: {error}")
    if not isinstance(error, RefusedError):
        return error
    return TransactionConflictError(str(error)) if error.code == TRANSACTION_CONFLICT else RequestError(str(error))


def _unknown(leader: NodeId, error: BaseException) -> UnknownOutcomeError:
    return UnknownOutcomeError(
        f"the leader of the item, node {leader}, has not told what became of the change: {error}; "
        "it is unknown whether it will be seen, read the item or try again"
    )


class _Looking:
    """A leader that is asked, and has not answered yet."""

    __slots__ = (
        "_task",
        "at",
        "due",
        "epoch",
        "errand",
        "given_up",
        "has_been_silent",
        "is_superseded",
        "node",
        "number",
        "question",
    )

    def __init__(self, errand: Errand, node: NodeId, epoch: Epoch, question: Request) -> None:
        """Begin, in the task that will wait, before ``node`` is asked as the leader in ``epoch``."""
        self.errand = errand
        self.node = node
        self.epoch = epoch
        self.question = question
        self.number = 0
        self.due: set[int] = set()
        """What ``number`` is to be removed from, so that nobody looks any more."""
        self.at: asyncio.Future[Reply] | None = None
        """Of the answer of another node."""
        self.has_been_silent = False
        self.is_superseded = False
        self.given_up: PeerLostError | None = None
        """Why nobody waits any more."""
        self._task = asyncio.current_task()

    def give_up(self, why: PeerLostError) -> None:
        """Wait no more."""
        waited_for = self._task if self.at is None else self.at
        if self.given_up is None and waited_for is not None and waited_for.cancel():
            self.given_up = why

    def is_cancelled_by_others(self) -> bool:
        """Tell whether it was not only `give_up` that ended the wait."""
        if self._task is None:
            return False
        return (self._task.uncancel() if self.at is None else self._task.cancelling()) > 0
