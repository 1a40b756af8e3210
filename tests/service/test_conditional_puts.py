"""Puts and deletes that depend on what is there, in both kinds of tables of values."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.cluster import Conflicts, Table
from merganser.model.contents import Condition, Content, Tag
from merganser.model.errors import PreconditionFailedError, RequestError, UnavailableError, UnknownOutcomeError
from merganser.model.gossip import State
from merganser.model.ids import NodeId
from merganser.model.messages import Reply
from merganser.model.value_messages import PutValue, ValuePut
from merganser.service import conditional_puts
from merganser.service.key_values import Values
from merganser.sim.machine import Machine
from merganser.sim.world import World
from service.plays import (
    QUORUM,
    TIMEOUT_S,
    key_of,
    member,
    now_s,
    play,
    replicas_of,
    serve_instead,
    started,
    started_with_values,
    until,
)

KINDS: list[Conflicts] = ["siblings", "lww"]
NONE, SAME = Condition.NONE_MATCH, Condition.NOT_MODIFIED


async def put(
    machine: Machine,
    table: Table,
    value: bytes | Content | None,
    only_if: Condition | None = None,
    *,
    context: bytes = b"",
) -> bytes:
    values, key, deadline = member(machine).key_values, key_of(table, b"k"), now_s() + TIMEOUT_S
    if value is None:
        work = values.delete(table, key, context=context, only_if=only_if, level=QUORUM, deadline=deadline)
    else:
        work = values.put(table, key, value, context=context, only_if=only_if, level=QUORUM, deadline=deadline)
    return await machine.spawn(work)


async def get(machine: Machine, table: Table) -> Values:
    key = key_of(table, b"k")
    return await machine.spawn(member(machine).key_values.get(table, key, level=QUORUM, deadline=now_s() + TIMEOUT_S))


def told(values: Values) -> list[bytes]:
    return [sibling.value for sibling in values.siblings]


@pytest.mark.parametrize("conflicts", KINDS)
def test_none_match_lets_one_in_and_not_modified_who_knows_of_all(conflicts: Conflicts) -> None:
    async def script(world: World) -> None:
        table = await started_with_values(world, conflicts)
        one, other, third = world.machines
        first = await put(one, table, b"first", NONE)
        with pytest.raises(PreconditionFailedError, match="there is a value already"):
            await put(other, table, b"second", NONE)
        await put(other, table, b"second", SAME, context=first)
        with pytest.raises(PreconditionFailedError, match="modified by somebody"):
            await put(third, table, b"third", SAME, context=first)
        with pytest.raises(PreconditionFailedError, match="no context was given"):
            await put(third, table, b"third", SAME)
        with pytest.raises(PreconditionFailedError, match="modified by somebody"):
            await put(third, table, None, SAME, context=first)
        found = await get(third, table)
        assert told(found) == [b"second"]
        await put(third, table, None, SAME, context=found.context)
        assert told(await get(one, table)) == []
        await put(third, table, b"anew", NONE)
        assert told(await get(one, table)) == [b"anew"]

    play(script)


@pytest.mark.parametrize("conflicts", KINDS)
def test_of_many_who_depend_on_the_same_one_is_done(conflicts: Conflicts) -> None:
    async def script(world: World) -> None:
        table = await started_with_values(world, conflicts)
        for round_number in range(5):
            before = await get(world.machines[0], table)
            wanted = [
                (machine, f"{round_number}-{number}".encode()) for number, machine in enumerate(world.machines * 3)
            ]
            ended = await asyncio.gather(
                *(put(machine, table, value, SAME, context=before.context) for machine, value in wanted),
                return_exceptions=True,
            )
            assert sum(isinstance(one, bytes) for one in ended) == 1
            assert all(isinstance(one, bytes | PreconditionFailedError) for one in ended)
            winner = next(value for (_, value), one in zip(wanted, ended, strict=True) if isinstance(one, bytes))
            assert told(await get(world.machines[1], table)) == [winner]

    play(script)


@pytest.mark.parametrize("conflicts", KINDS)
def test_a_replica_that_was_slow_of_late_decides_all_the_same(conflicts: Conflicts) -> None:
    async def script(world: World) -> None:
        table = await started_with_values(world, conflicts)
        first, second, third = replicas_of(world, table, b"k")
        for machine in second, third:
            member(machine).coordinator._asker.note_silence(member(first).topology.node)
        ended = await asyncio.gather(
            *(put(machine, table, member(machine).topology.node.encode(), NONE) for machine in (first, second, third)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, bytes) for one in ended) == 1
        assert len(told(await get(second, table))) == 1

    play(script)


@pytest.mark.parametrize("conflicts", KINDS)
def test_the_next_replica_sees_to_them_when_the_first_is_away(conflicts: Conflicts) -> None:
    async def script(world: World) -> None:
        table = await started_with_values(world, conflicts)
        first, second, third = replicas_of(world, table, b"k")
        world.cut_off(first)
        with pytest.raises(UnavailableError):
            await put(first, table, b"alone", NONE)
        with pytest.raises(UnknownOutcomeError, match="no reply in time"):
            await put(third, table, b"into the void", NONE)
        away = member(first).topology.node
        doubting = [member(machine).failure_detector.doubted for machine in (second, third)]
        await until(lambda: all(doubted.get(away) is State.DEAD for doubted in doubting))
        await put(second, table, b"value", NONE)
        with pytest.raises(PreconditionFailedError):
            await put(third, table, b"another", NONE)

    play(script)


@pytest.mark.parametrize("conflicts", KINDS)
def test_what_is_said_about_a_value_comes_back_with_it(conflicts: Conflicts) -> None:
    async def script(world: World) -> None:
        table = await started_with_values(world, conflicts)
        one, other, third = world.machines
        content = Content(b"{}", "application/json", (("k", "v"),), (Tag("age", 5), Tag("name", b"ann")), "shop-7")
        context = await put(one, table, content)
        (sibling,) = (await get(third, table)).siblings
        assert (sibling.value, sibling.content_type, sibling.client) == (b"{}", "application/json", "shop-7")
        assert (sibling.metadata, sibling.tags) == (content.metadata, content.tags)
        assert sibling.dot.number == member(one).topology.me.number
        with pytest.raises(RequestError, match="tags"):
            await put(other, table, Content(b"", tags=tuple(Tag("a", n) for n in range(65))))
        await put(other, table, b"plain", context=context)
        (sibling,) = (await get(third, table)).siblings
        assert (sibling.value, sibling.content_type, sibling.metadata, sibling.tags) == (b"plain", "", (), ())

    play(script)


def test_the_last_write_wins_whatever_was_seen_and_is_later_than_that() -> None:
    async def script(world: World) -> None:
        table = await started_with_values(world, "lww")
        one, other, third = world.machines
        one.skew_us += 5_000_000
        ahead = await put(one, table, b"of a fast clock")
        await put(other, table, b"who has seen it", context=ahead)
        assert told(await get(third, table)) == [b"who has seen it"]
        await put(third, table, b"who has seen nothing")
        found = await get(one, table)
        assert told(found) == [b"who has seen nothing"]
        await put(other, table, None, context=found.context)
        assert told(await get(third, table)) == []

    play(script)


def test_a_table_with_leaders_has_no_contexts() -> None:
    async def script(world: World) -> None:
        await started(world)
        table = await world.table("items", replication="leader")
        with pytest.raises(RequestError, match="it has leaders"):
            await put(world.machines[0], table, b"value")

    play(script)


@pytest.mark.parametrize("conflicts", KINDS)
def test_a_request_that_comes_twice_is_done_once_and_answered_alike(conflicts: Conflicts) -> None:
    async def script(world: World) -> None:
        table = await started_with_values(world, conflicts)
        first = replicas_of(world, table, b"k")[0]
        asker = next(machine for machine in world.machines if machine is not first)
        answers: list[object] = []
        real = member(first).key_values.conditional_puts.answer

        async def twice(sender: NodeId, request: PutValue) -> Reply:
            again = await asyncio.gather(real(sender, request), real(sender, request), return_exceptions=True)
            answers.extend(again)
            later = await asyncio.gather(real(sender, request), return_exceptions=True)
            answers.extend(later)
            if isinstance(later[0], BaseException):
                raise later[0]
            return later[0]

        serve_instead(first, PutValue, twice)
        context = await put(asker, table, b"first", NONE)
        assert answers == [ValuePut(context)] * 3
        with pytest.raises(PreconditionFailedError):
            await put(asker, table, b"second", NONE)
        assert all(isinstance(answer, PreconditionFailedError) for answer in answers[3:])
        assert len(answers) == 6
        assert told(await get(asker, table)) == [b"first"]

    play(script)


def test_more_requests_than_can_be_known_again_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional_puts, "REQUESTS_MAX", 1)

    async def script(world: World) -> None:
        table = await started_with_values(world, "siblings")
        first = replicas_of(world, table, b"k")[0]
        asker = next(machine for machine in world.machines if machine is not first)
        context = await put(asker, table, b"first", NONE)
        with pytest.raises(UnavailableError, match="more than 1 such puts were handed on"):
            await put(asker, table, b"second", SAME, context=context)
        assert told(await get(asker, table)) == [b"first"]

    play(script)
