"""Deliberate bugs in the protocol of leader-based tables; see `planting`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from merganser.core import once, transaction
from merganser.core.first_touch import KNOWN, Touched, touched
from merganser.core.leadership import Elections
from merganser.model.errors import UnavailableError, UnknownOutcomeError
from merganser.model.leader_messages import Changed, ReadRangeLed, Replicate
from merganser.model.leadership import Group
from merganser.model.register import Content, Intent, Version
from merganser.model.transaction import PrepareAnswer, Ready
from merganser.service import first_touches, leader_asking, register_replica, steps
from merganser.service.confirming import Confirmations
from merganser.service.in_flight import Flight, Proposal
from merganser.service.leader import Leader
from merganser.service.led_items import LedItems
from merganser.service.led_ranges import LedRanges
from merganser.service.led_reads import LedReads
from merganser.service.ledger_sweep import LedgerSweep
from merganser.service.promises import Promises
from merganser.service.register_replica import RegisterReplica
from merganser.storage import registers
from merganser.storage.engine import Engine
from sim.mutations.planting import ELECTIONS, FIRST_TOUCH, ITEMS, TRANSACTIONS, planted

REGISTERS = ("linearizable", "item versions", "counters", "held")
PROMISES = ("promises", *REGISTERS)

# Elections.


@planted(
    *PROMISES,
    mechanism=ELECTIONS,
    workload="counters",
    nemesis="crashes+partitions",
    hot_keys=1,
)
def promises_forgotten_at_restart(patch: pytest.MonkeyPatch) -> None:
    real = Promises.__init__

    def forgetful(self: Promises, engine: Engine) -> None:
        real(self, engine)
        self._promised.clear()

    patch.setattr(Promises, "__init__", forgetful)


@planted(
    *PROMISES,
    mechanism=ELECTIONS,
    likely=2,
    workload="counters",
    nemesis="crashes+disks+partitions",
    nodes=3,
    hot_keys=1,
)
def promise_answered_before_it_is_durable(patch: pytest.MonkeyPatch) -> None:
    async def at_once(self: Promises) -> None:
        self._undurable.clear()

    patch.setattr(Promises, "durable", at_once)


@planted(*PROMISES, mechanism=ELECTIONS, likely=1, workload="counters", nemesis="pauses", nodes=3, hot_keys=1)
def promised_replica_serves_earlier_leaders(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Promises, "check", lambda _self, _group, _epoch: None)


@planted(
    *REGISTERS,
    mechanism=ELECTIONS,
    likely=3,
    workload="counters",
    nemesis="pauses",
    nodes=3,
    operations=50,
    hot_keys=1,
    pace="slow",
)
def read_without_a_look_at_the_epoch(patch: pytest.MonkeyPatch) -> None:
    async def confirm(_self: Confirmations, _term: object, *, deadline: float) -> None:
        return

    def begin(self: Confirmations, _term: object, *, deadline: float) -> asyncio.Future[bool]:
        confirmed: asyncio.Future[bool] = self._loop.create_future()
        confirmed.set_result(True)
        return confirmed

    patch.setattr(Confirmations, "confirm", confirm)
    patch.setattr(Confirmations, "begin", begin)


@planted(
    *REGISTERS,
    mechanism=ELECTIONS,
    likely=3,
    workload="counters",
    nemesis="pauses",
    nodes=3,
    operations=50,
    hot_keys=1,
    pace="slow",
)
def leader_takes_its_own_word_for_a_majority(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LedReads, "_is_confirmed_by", lambda _self, _sender, _term, _map_epoch: True)


@planted("available", mechanism=ELECTIONS, workload="items", nemesis="crashes", nodes=3, pace="slow")
def nobody_takes_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Elections, "_first", lambda self, group, _now_s: self._replicas[group][0])


@planted("leaders", mechanism=ELECTIONS, likely=3, workload="items", nemesis="crashes")
def nothing_handed_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Elections, "handovers", lambda _self, _now_s: {})


# Items.


@planted(*REGISTERS, mechanism=ITEMS, likely=40, workload="counters", nemesis="crashes+partitions", hot_keys=1)
def change_answered_before_the_majority(patch: pytest.MonkeyPatch) -> None:
    real = Flight.__init__

    def hasty(self: Flight, *of: Any, **named: Any) -> None:
        real(self, *of, **named)
        self._enough = 1

    patch.setattr(Flight, "__init__", hasty)
    patch.setattr(Flight, "_have_most", lambda _self, _acks: True)


@planted(
    *REGISTERS, mechanism=ITEMS, likely=27, workload="counters", nemesis="partitions", nodes=3, hot_keys=1, pace="slow"
)
def read_of_what_is_in_flight(patch: pytest.MonkeyPatch) -> None:
    async def revealed(_self: LedItems, _term: object, _key: bytes) -> None:
        return

    patch.setattr(LedItems, "revealed", revealed)


@planted(
    *REGISTERS,
    mechanism=ITEMS,
    likely=38,
    workload="counters",
    nemesis="storms+crashes",
    nodes=3,
    operations=80,
    hot_keys=1,
    loss=0.3,
    pace="quick",
)
def follower_keeps_what_comes_last(patch: pytest.MonkeyPatch) -> None:
    def keep(self: RegisterReplica, request: Replicate, group: Group) -> None:
        stored = self._engine.get(request.key)
        self._trees.put(request.table, group.partition, request.key, stored, request.register)

    patch.setattr(RegisterReplica, "_keep", keep)


@planted(
    "counters", "linearizable", mechanism=ITEMS, likely=4, workload="counters", nemesis="partitions+storms", hot_keys=1
)
def repeated_request_done_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(once.Once, "of", lambda _self, _request: None)


@planted(
    "counters", "linearizable", mechanism=ITEMS, likely=2, workload="counters", nemesis="crashes+partitions", hot_keys=1
)
def change_that_may_be_done_sent_to_the_next_leader(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leader_asking, "wrote_nothing", lambda _error: True)


@planted(
    "counters",
    "linearizable",
    mechanism=ITEMS,
    likely=8,
    workload="counters",
    nemesis="partitions",
    nodes=3,
    hot_keys=1,
    pace="slow",
)
def unknown_outcome_called_failed(patch: pytest.MonkeyPatch) -> None:
    real = Leader.written

    def written(self: Leader, proposal: Proposal) -> Changed:
        try:
            return real(self, proposal)
        except UnknownOutcomeError as error:
            raise UnavailableError(str(error)) from None

    patch.setattr(Leader, "written", written)


@planted(
    "linearizable",
    mechanism=ITEMS,
    likely=4,
    is_soak=True,
    workload="item-scans",
    nemesis="partitions+crashes",
)
def range_read_without_covering_it(patch: pytest.MonkeyPatch) -> None:
    async def cover(_self: LedRanges, _term: object, _table: object, request: ReadRangeLed) -> bytes:
        return request.end

    patch.setattr(LedRanges, "_cover", cover)


# First touch.


@planted(*REGISTERS, mechanism=FIRST_TOUCH, likely=5, workload="counters", nemesis="crashes+partitions", hot_keys=1)
def leader_trusts_its_own_register(patch: pytest.MonkeyPatch) -> None:
    def trusting(*of: Any, is_own_intact: bool, **named: Any) -> Touched | None:
        return KNOWN if is_own_intact else touched(*of, is_own_intact=is_own_intact, **named)

    patch.setattr(first_touches, "touched", trusting)


@planted(
    *REGISTERS,
    mechanism=FIRST_TOUCH,
    likely=15,
    workload="items",
    nemesis="partitions",
    nodes=3,
    operations=60,
    hot_keys=6,
    repair_interval_s=1e9,
)
def nothing_written_back(patch: pytest.MonkeyPatch) -> None:
    """The leader keeps what it has met, under the version that it has, and asks nobody else to."""

    def write_back(
        self: first_touches.FirstTouches,
        term: first_touches.Term,
        table: Any,
        key: bytes,
        verdict: Touched,
        own: bytes | None,
        _met: object,
        *,
        is_intact: bool,
    ) -> None:
        if verdict.adopt is not None and verdict.adopt != own:
            self._put_back(table, own, _Kept(key, verdict.adopt))  # type: ignore[arg-type]
        self.place(term, table).touched(key)

    patch.setattr(first_touches.FirstTouches, "_write_back", write_back)


class _Kept:
    def __init__(self, key: bytes, register: bytes) -> None:
        self.key, self.request, self.register = key, self, register


@planted(*REGISTERS, mechanism=FIRST_TOUCH, likely=3, workload="counters", nemesis="crashes+partitions", hot_keys=1)
def one_hash_tree_counts_for_a_majority(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(first_touches, "is_known_by_roots", lambda roots, me, _replicas: me in roots)


@planted(
    *REGISTERS,
    mechanism=FIRST_TOUCH,
    likely=39,
    is_soak=True,
    workload="counters",
    nemesis="crashes+partitions",
    hot_keys=1,
)
def sequence_compared_before_the_epoch(patch: pytest.MonkeyPatch) -> None:
    def version_of(key: bytes, stored: bytes) -> Version:
        return _SequenceFirst(*registers.version_of(key, stored))

    def is_later(key: bytes, stored: bytes, other: bytes) -> bool:
        return version_of(key, stored) > version_of(key, other)

    patch.setattr(register_replica, "is_later", is_later)
    patch.setattr(first_touches, "_version", version_of)


class _SequenceFirst(Version):
    def __ge__(self, other: Any) -> bool:
        return _turned(self) >= _turned(other)

    def __gt__(self, other: Any) -> bool:
        return _turned(self) > _turned(other)


def _turned(version: Version) -> tuple[int, int, int]:
    return version[2], version[0], version[1]


# Transactions.


@planted(
    "serializable",
    "bank",
    mechanism=TRANSACTIONS,
    likely=1,
    is_soak=True,
    workload="appends",
    nemesis="crashes+partitions",
)
def committed_before_all_items_are_prepared(patch: pytest.MonkeyPatch) -> None:
    def outcome(answers: Sequence[PrepareAnswer | None]) -> transaction.Outcome:
        some = any(isinstance(answer, Ready) for answer in answers)
        return transaction.Outcome.COMMIT if some else transaction.Outcome.CANCEL

    patch.setattr(transaction, "outcome", outcome)


@planted(
    "bank",
    "serializable",
    mechanism=TRANSACTIONS,
    likely=22,
    is_soak=True,
    workload="bank",
    nemesis="crashes+partitions",
)
def committed_intent_ignored_by_reads(patch: pytest.MonkeyPatch) -> None:
    def value_seen(content: Content, _fate: transaction.Fate) -> bytes | None:
        return content.value

    patch.setattr(transaction, "value_seen", value_seen)


@planted("serializable", "bank", mechanism=TRANSACTIONS, likely=6, workload="appends", nemesis="partitions")
def snapshot_in_one_round(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction, "moved", lambda earlier, _later: [False] * len(earlier))


@planted("serializable", mechanism=TRANSACTIONS, likely=1, is_soak=True, workload="appends", nemesis="partitions")
def lock_ignored_by_single_changes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(steps, "Maker", lambda step_of, meets_intents: _Maker(step_of, True))


class _Maker:
    def __init__(self, step_of: Any, meets_intents: bool) -> None:
        self.step_of, self.meets_intents = step_of, meets_intents


@planted(
    "serializable",
    "bank",
    mechanism=TRANSACTIONS,
    is_soak=True,
    workload="bank",
    nemesis="crashes+partitions",
    hot_keys=1,
)
def intent_of_any_attempt_applied(patch: pytest.MonkeyPatch) -> None:
    def is_of(intent: Intent, _transaction: bytes, _attempt: int) -> bool:
        return intent is not None

    patch.setattr(transaction, "_is_of", is_of)


@planted("intents", "ledger", mechanism=TRANSACTIONS, likely=8, is_soak=True, workload="appends", nemesis="crashes")
def transaction_of_a_dead_coordinator_left_alone(patch: pytest.MonkeyPatch) -> None:
    async def look(_self: LedgerSweep, _table: object) -> None:
        return

    patch.setattr(LedgerSweep, "_look", look)
