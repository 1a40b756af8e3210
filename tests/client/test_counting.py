"""What is counted once, and under which ids: nodes made by hand, on virtual time."""

from __future__ import annotations

import asyncio

import pytest

from client.by_hand import Nodes, a_map, client_of, on_virtual_time
from merganser.client import Client, counting
from merganser.model import crdt
from merganser.model.client_messages import AskSession, ClientUpdate, SessionIs, UpdateIs
from merganser.model.crdt import Operation, Session
from merganser.model.errors import (
    PeerLostError,
    PeerUnreachableError,
    RefusedError,
    RequestError,
    SessionError,
    UnavailableError,
    UnknownOutcomeError,
)
from merganser.model.ids import NodeId
from merganser.model.messages import Reply, Request

MADE = UpdateIs(has_changed=True, map_epoch=1)
LOST = PeerLostError("the connection broke")


class Counted:
    """Nodes that open sessions, and answer updates with what a test says, one after another; then that it is made."""

    def __init__(self, *answers: Reply | Exception | None) -> None:
        self.sessions = 0
        self.sent: list[ClientUpdate] = []
        self.answers = iter(answers)
        self.nodes = Nodes(a_map(), self._say)

    def _say(self, _node: NodeId, request: Request) -> Reply | Exception | None:
        if isinstance(request, AskSession):
            self.sessions += 1
            return SessionIs(Session(10**9, 1, self.sessions), 1)
        assert isinstance(request, ClientUpdate)
        self.sent.append(request)
        return next(self.answers, MADE)

    @property
    def ids(self) -> list[tuple[int, int] | None]:
        """Session and number of each update that was sent."""
        return [None if one.update is None else (one.update.session.began_us, one.update.sequence) for one in self.sent]


async def count(client: Client, key: str = "k") -> bool:
    return await client.crdt("t", key).counter("hits").increment(3)


@on_virtual_time
async def test_updates_of_a_key_are_numbered_one_after_another_in_one_session_for_all_keys() -> None:
    counted = Counted()
    async with client_of(counted.nodes) as client:
        assert await asyncio.gather(*(count(client) for _ in range(5))) == [True] * 5
        await count(client, "other")
        await count(client)
    assert counted.ids == [*((1, number) for number in range(1, 6)), (1, 1), (1, 6)]
    assert counted.sent[0].operations == (Operation("counter", "increment", 3, (b"hits",)),)


@on_virtual_time
async def test_an_update_that_counts_is_sent_under_its_id_until_it_is_known_to_be_made() -> None:
    counted = Counted(LOST, RefusedError("unknown_outcome", "one replica may have it"), PeerUnreachableError(""))
    async with client_of(counted.nodes) as client:
        assert await count(client)
        assert client.repeats == 3
    assert counted.ids == [(1, 1)] * 4
    assert len({node for node, request in counted.nodes.asked if isinstance(request, ClientUpdate)}) == 4
    assert [one.timeout_ms for one in counted.sent] == [900] * 4  # half of the 2 s, less the way back


@on_virtual_time
async def test_nothing_else_is_sent_under_the_id_of_an_update_whose_outcome_is_unknown() -> None:
    counted = Counted(*[LOST] * 100)
    async with client_of(counted.nodes) as client:
        with pytest.raises(UnknownOutcomeError, match="the connection broke; it may have been written, now or later"):
            await count(client)
        assert set(counted.ids) == {(1, 1)}
        counted.answers = iter([])
        counted.sent.clear()
        await count(client, "other")
        await count(client)
        await count(client, "other")
        await count(client, "third")
    assert counted.ids == [(1, 1), (2, 1), (1, 2), (2, 1)]


@on_virtual_time
async def test_who_was_cancelled_leaves_the_number_behind() -> None:
    counted = Counted(None)
    async with client_of(counted.nodes) as client:
        task = asyncio.create_task(count(client))
        while not counted.sent:  # noqa: ASYNC110  # on virtual time
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait({task})
        await count(client)
    assert counted.ids == [(1, 1), (2, 1)]


@on_virtual_time
async def test_a_number_under_which_nothing_was_written_is_used_again() -> None:
    counted = Counted(RefusedError("request", "a set is there"), *[RefusedError("unavailable", "too few")] * 200)
    async with client_of(counted.nodes) as client:
        with pytest.raises(RequestError, match="a set is there"):
            await count(client)
        with pytest.raises(UnavailableError, match="nothing was written"):
            await count(client)
    assert set(counted.ids) == {(1, 1)}


@on_virtual_time
async def test_a_session_that_is_of_no_use_any_more_is_left_for_another_one() -> None:
    gone = RefusedError("session", "update 2 of a session that has made 0 of this key")
    counted = Counted(MADE, gone, MADE, gone, gone)  # the table was dropped and made again
    async with client_of(counted.nodes) as client:
        await count(client)
        assert await count(client)
        assert counted.ids == [(1, 1), (1, 2), (2, 1)]
        with pytest.raises(SessionError):
            await count(client)


@on_virtual_time
async def test_a_session_that_ends_while_an_outcome_is_unknown_leaves_it_unknown() -> None:
    counted = Counted(LOST, RefusedError("session", "the session of this update has ended"))
    async with client_of(counted.nodes) as client:
        with pytest.raises(UnknownOutcomeError, match="has ended"):
            await count(client)


@on_virtual_time
async def test_a_session_is_left_long_before_its_end() -> None:
    counted = Counted()
    async with client_of(counted.nodes) as client:
        await count(client)
        await asyncio.sleep(counting.RENEW_S + 1)
        await count(client)
    assert counted.ids == [(1, 1), (2, 1)]
    assert counting.RENEW_S + 60 < counting.LIFE_S


def test_a_key_that_was_forgotten_does_not_begin_anew_in_the_session_it_was_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "KEYS_MAX", 2)

    @on_virtual_time
    async def script() -> None:
        counted = Counted()
        async with client_of(counted.nodes) as client:
            for key in "abca":
                await count(client, key)
        sent = [(one.key, number) for one, number in zip(counted.sent, counted.ids, strict=True)]
        assert sent == [(b"a", (1, 1)), (b"b", (1, 1)), (b"c", (2, 1)), (b"a", (2, 1))]

    script()


@on_virtual_time
async def test_what_does_not_count_is_sent_once_and_so_is_what_counts_at_too_weak_a_level() -> None:
    counted = Counted(LOST, LOST, LOST)
    async with client_of(counted.nodes) as client:
        home = client.crdt("t", "k")
        for update in (
            home.set("items").add("milk"),
            home.update(Operation(crdt.ANY, "reset")),
            home.counter("hits").increment(consistency="ONE"),
        ):
            with pytest.raises(UnknownOutcomeError):
                await update
    assert counted.ids == [None] * 3
    assert [one.level for one in counted.sent] == ["QUORUM", "QUORUM", "ONE"]
    assert counted.sessions == 0


@on_virtual_time
async def test_what_cannot_be_is_told_before_anybody_is_asked() -> None:
    counted = Counted()
    async with client_of(counted.nodes) as client:
        home = client.crdt("t", "k")
        large = home.set("s").add(*(b"%4096d" % number for number in range(101)))
        megabyte = bytes(1024 * 1024)
        larger = home.update(*(Operation("register", "assign", megabyte, (b"%d" % number,)) for number in range(9)))
        for wrong in (
            home.counter().increment(0),
            home.set().add(b"e" * 4097),
            home.update(),
            home.map().remove(""),
            large,
            larger,
        ):
            with pytest.raises(RequestError):
                await wrong
        with pytest.raises(TypeError, match=r"value must be bytes or text, not float: 1\.5"):
            await home.set().add(1.5)  # type: ignore[arg-type]
    assert counted.nodes.asked == []
