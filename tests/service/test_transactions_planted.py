"""The random histories of transactions find what they are there to find: bugs, planted one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from merganser.core import transaction
from merganser.core.transaction import Fate, Seen
from merganser.model.register import EMPTY, Content, Decided, Register
from merganser.model.transaction import Apply, Commit, Prepare, Ready, Record, State
from merganser.service import transaction_recovery
from merganser.service.transactions import Transactions
from service.transaction_histories import torn_reads, unexplained

SEEDS = 60

Plant = Callable[[pytest.MonkeyPatch], None]
PLANTED: dict[str, Plant] = {}


def planted(plant: Plant) -> Plant:
    PLANTED[plant.__name__] = plant
    return plant


@planted
def reads_do_not_ask_the_ledger(patch: pytest.MonkeyPatch) -> None:
    async def for_read(_self: Any, _table: Any, _key: bytes, register: Register, *, deadline: float) -> bytes | None:
        return register.value

    patch.setattr(transaction_recovery.Recovery, "for_read", for_read)


@planted
def an_intent_without_a_record_is_read_as_the_old_value(patch: pytest.MonkeyPatch) -> None:
    real = transaction.fate

    def fate(record: Record | None, attempt: int) -> Fate:
        found = real(record, attempt)
        return Fate.ABORTED if found is Fate.VOID else found

    patch.setattr(transaction, "fate", fate)


@planted
def a_change_clears_an_undecided_intent(patch: pytest.MonkeyPatch) -> None:
    real = transaction.fate

    def fate(record: Record | None, attempt: int) -> Fate:
        found = real(record, attempt)
        return Fate.ABORTED if found is Fate.PENDING else found

    patch.setattr(transaction, "fate", fate)


@planted
def an_item_that_did_not_answer_is_taken_for_prepared(patch: pytest.MonkeyPatch) -> None:
    real = Transactions._prepare_all

    async def prepare_all(self: Transactions, *args: Any, **options: Any) -> tuple[list[Any], list[Any]]:
        answers, wrong = await real(self, *args, **options)
        return [Ready(b"") if answer is None else answer for answer in answers], wrong

    patch.setattr(Transactions, "_prepare_all", prepare_all)


@planted
def a_commit_overrules_an_abort(patch: pytest.MonkeyPatch) -> None:
    real = transaction.on_ledger

    def on_ledger(step: Any, content: Content) -> Decided:
        record = transaction.record_in(content.value)
        if isinstance(step, Commit) and record is not None and record.state is State.ABORTED:
            begun = msgspec.structs.replace(record, state=State.BEGUN)
            return real(step, Content(msgspec.msgpack.encode(begun)))
        return real(step, content)

    patch.setattr(transaction, "on_ledger", on_ledger)


@planted
def preparing_takes_the_lock_of_another(patch: pytest.MonkeyPatch) -> None:
    real = transaction.on_item

    def on_item(step: Any, content: Content, evaluate: Any) -> Decided:
        return real(step, Content(content.value) if isinstance(step, Prepare) else content, evaluate)

    patch.setattr(transaction, "on_item", on_item)


@planted
def any_intent_is_applied_or_cleared(patch: pytest.MonkeyPatch) -> None:
    real = transaction.on_item

    def on_item(step: Any, content: Content, evaluate: Any) -> Decided:
        if not isinstance(step, Prepare) and content.intent is not None:
            intent = content.intent
            value = intent.value if isinstance(step, Apply) and intent.changes else content.value
            return Decided(EMPTY if value is None else Content(value))
        return real(step, content, evaluate)

    patch.setattr(transaction, "on_item", on_item)


@planted
def an_aborted_transaction_is_applied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction, "settling", lambda transaction_id, attempt, _fate: Apply(transaction_id, attempt))


@planted
def only_versions_are_compared_by_reads_of_several_items(patch: pytest.MonkeyPatch) -> None:
    def moved(earlier: Sequence[Seen], later: Sequence[Seen]) -> list[bool]:
        return [one.version != other.version for one, other in zip(earlier, later, strict=True)]

    patch.setattr(transaction, "moved", moved)


@planted
def several_items_are_read_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transaction, "moved", lambda earlier, _later: [False] * len(earlier))


@planted
def the_record_is_removed_before_all_is_applied(patch: pytest.MonkeyPatch) -> None:
    async def settle_all(*_args: Any, **_options: Any) -> list[Any]:
        return []

    patch.setattr(transaction_recovery.Recovery, "settle_all", settle_all)


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    assert torn_reads() or any(unexplained(seed) for seed in range(SEEDS))
