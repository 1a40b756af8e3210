"""Deliberate bugs in puts that depend on something, and where the last write wins; see `planting`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from merganser.core import briefs, causality, last_writes, preconditions
from merganser.model.consistency import Consistency
from merganser.model.contents import Condition
from merganser.model.errors import PreconditionFailedError, UnavailableError, UnknownOutcomeError
from merganser.model.row import Context
from merganser.service import conditional_puts, key_lists, range_merge
from merganser.service.asking import Writing
from merganser.service.conditional_puts import ConditionalPuts
from merganser.service.key_values import KeyValues
from merganser.service.turns import KeyedTurns
from sim.mutations.planting import CONDITIONS, planted


@planted("conditions", mechanism=CONDITIONS, workload="conditions", nemesis="none", hot_keys=1)
def conditional_puts_of_a_key_decide_at_once(patch: pytest.MonkeyPatch) -> None:
    @contextlib.asynccontextmanager
    async def one(_turns: KeyedTurns, _key: bytes, _deadline: float) -> AsyncIterator[None]:
        yield

    patch.setattr(KeyedTurns, "one", one)


@planted("conditions", mechanism=CONDITIONS, workload="conditions", nemesis="none", hot_keys=1)
def each_node_decides_about_conditions_by_itself(patch: pytest.MonkeyPatch) -> None:
    async def put(puts: ConditionalPuts, change: Any, condition: Any, read_level: Any) -> bytes:
        return await puts._decide(change, condition, read_level)

    patch.setattr(ConditionalPuts, "put", put)


@planted(
    "conditions",
    mechanism=CONDITIONS,
    workload="conditions",
    nemesis="partitions",
    nodes=3,
    hot_keys=1,
    repair_interval_s=1e9,
)
def condition_is_looked_up_on_one_replica(patch: pytest.MonkeyPatch) -> None:
    real = KeyValues._current

    async def current(values: KeyValues, table: Any, key: bytes, _level: Any, deadline: float) -> Any:
        return await real(values, table, key, Consistency.ONE, deadline)

    def conditional(puts: ConditionalPuts, topology: Any, asker: Any, *, read: Any, put: Any, rng: Any) -> None:
        values = read.__self__
        init(puts, topology, asker, read=lambda *asked: current(values, *asked), put=put, rng=rng)

    init = ConditionalPuts.__init__
    patch.setattr(ConditionalPuts, "__init__", conditional)


@planted("conditions", mechanism=CONDITIONS, likely=1, workload="conditions", nemesis="none")
def not_modified_asks_for_no_more_than_that_something_was_seen(patch: pytest.MonkeyPatch) -> None:
    """As if who has seen one of two siblings had seen the other."""

    def covers(seen: Context, current: Context) -> bool:
        return any(span in current for span in seen)

    patch.setattr(preconditions, "causality", _With(causality, covers=covers))


@planted("conditions", mechanism=CONDITIONS, likely=5, workload="conditions", nemesis="none")
def none_match_takes_a_delete_for_a_value(patch: pytest.MonkeyPatch) -> None:
    real = preconditions.objection

    def objection(condition: Any, **known: Any) -> str:
        if condition is Condition.NONE_MATCH and known["current"]:
            return "there was something"
        return real(condition, **known)

    patch.setattr(preconditions, "objection", objection)


@planted("siblings", mechanism=CONDITIONS, workload="conditions", nemesis="none")
def refused_put_is_done_all_the_same(patch: pytest.MonkeyPatch) -> None:
    real = ConditionalPuts._decide

    async def decide(puts: ConditionalPuts, change: Any, condition: Any, read_level: Any) -> bytes:
        try:
            return await real(puts, change, condition, read_level)
        except PreconditionFailedError:
            await puts._do(change)
            raise

    patch.setattr(ConditionalPuts, "_decide", decide)


@planted("siblings", mechanism=CONDITIONS, likely=17, workload="conditions")
def conditional_put_that_was_handed_on_and_lost_is_called_unwritten(patch: pytest.MonkeyPatch) -> None:
    real = conditional_puts._told

    def told(node: Any, error: BaseException) -> Exception:
        found = real(node, error)
        return UnavailableError(str(found)) if isinstance(found, UnknownOutcomeError) else found

    patch.setattr(conditional_puts, "_told", told)


@planted(
    "last writes",
    "siblings",
    "conditions",
    mechanism=CONDITIONS,
    likely=25,
    workload="last-writes",
    nemesis="storms",
    nodes=3,
    partitions=8,
    loss=0.5,
    operations=40,
    hot_keys=1,
)
def conditional_put_that_comes_twice_is_decided_twice(patch: pytest.MonkeyPatch) -> None:
    async def decide(puts: ConditionalPuts, _request: bytes, change: Any, condition: Any, read_level: Any) -> bytes:
        return await puts._decide(change, condition, read_level)

    patch.setattr(ConditionalPuts, "_decide_once", decide)


@planted("last writes", mechanism=CONDITIONS, workload="last-writes", nemesis="clocks", hot_keys=1)
def put_is_done_though_a_last_write_of_later_stands(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writing, "_compare", lambda _self, _ack: None)


@planted("conditions", mechanism=CONDITIONS, workload="last-writes", nemesis="none")
def last_write_is_not_modified_by_a_later_one(patch: pytest.MonkeyPatch) -> None:
    def newest(seen: Context) -> Any:
        return min(seen)

    patch.setattr(preconditions, "last_writes", _With(last_writes, newest=newest))


@planted("keys", mechanism=CONDITIONS, likely=5, workload="conditions", nemesis="partitions")
def list_takes_the_word_of_the_first_replica(patch: pytest.MonkeyPatch) -> None:
    """Where replicas differ, nobody looks."""
    real = briefs.is_there
    patch.setattr(briefs, "is_there", lambda told, now_s: real(list(told)[:1], now_s))


@planted("keys", mechanism=CONDITIONS, likely=6, workload="conditions", nemesis="none")
def list_takes_what_was_deleted_for_a_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(briefs, "lasts_until_s", lambda _row, _conflicts: briefs.FOREVER_S)


@planted("keys", mechanism=CONDITIONS, likely=1, workload="conditions", nemesis="none")
def list_goes_on_behind_the_key_that_comes_next(patch: pytest.MonkeyPatch) -> None:
    real = range_merge.merge_pages

    def merged(pages: Any, *, reverse: bool) -> Any:
        page = real(pages, reverse=reverse)
        return page if page.resume is None else msgspec.structs.replace(page, answers=page.answers[:-1])

    patch.setattr(key_lists, "merge_pages", merged)


class _With:
    """A module of which one thing is another."""

    def __init__(self, module: Any, **changed: Any) -> None:
        self._module = module
        self.__dict__ |= changed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
