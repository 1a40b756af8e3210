"""Transactions: what each step makes of items and records, and what an intent comes to."""

from __future__ import annotations

import msgspec
import pytest

from merganser.core import transaction
from merganser.core.transaction import DECIDED_KEPT_S, KEPT_S, Fate, Outcome, Seen
from merganser.model.errors import CorruptionError, RequestError
from merganser.model.ids import TableId
from merganser.model.register import EMPTY, Content, Decided, Intent, Version
from merganser.model.transaction import (
    Abort,
    Apply,
    Bar,
    Begin,
    Clear,
    Commit,
    Failed,
    Finish,
    Forget,
    Held,
    LedgerStep,
    Prepare,
    Ready,
    Reason,
    ReasonKind,
    Record,
    State,
)

ID, OTHER_ID = b"i" * 16, b"o" * 16
ITEMS = ((TableId(1), b"a"), (TableId(2), b"b"))
BEGIN = Begin(ID, 7, b"digest", ITEMS, is_kept=False)
KEPT = msgspec.structs.replace(BEGIN, is_kept=True)
PREPARE = Prepare(ID, 7, b"new", is_check=False)
INTENT = Intent(ID, 7, changes=True, value=b"new")
LOCKED = Content(b"old", INTENT)


def wire(payload: bytes, value: bytes | None) -> Decided:
    """Put the payload; but refuse "refused", delete for "delete", and leave the item as it is for "check"."""
    if payload == b"refused":
        return Decided(None, b"because", is_rejected=True)
    if payload == b"nonsense":
        raise RequestError("nonsense")
    if payload == b"check":
        return Decided(None, b"holds")
    return Decided(EMPTY if payload == b"delete" else Content(payload), b"was " + (value or b"nothing"))


def prepared(payload: bytes, content: Content, *, is_check: bool = False) -> Decided:
    return transaction.on_item(Prepare(ID, 7, payload, is_check), content, wire)


def ledger(*steps: LedgerStep) -> Content:
    """Return what a record's item holds after ``steps``."""
    content = EMPTY
    for step in steps:
        content = transaction.on_ledger(step, content).content or content
    return content


def record(*steps: LedgerStep) -> Record | None:
    return transaction.record_in(ledger(*steps).value)


def test_prepare_evaluates_the_wires_step_and_locks_the_item_for_what_comes_of_it() -> None:
    decided = prepared(b"new", Content(b"old"))
    assert decided.content == LOCKED
    assert transaction.prepare_answer_in(decided.answer) == Ready(b"was old")
    assert not decided.is_rejected


@pytest.mark.parametrize(
    ("payload", "before", "after"),
    [(b"new", b"old", b"new"), (b"new", None, b"new"), (b"delete", b"old", None), (b"check", b"old", b"old")],
)
def test_what_is_prepared_becomes_the_value_when_applied_and_stays_away_when_cleared(
    payload: bytes, before: bytes | None, after: bytes | None
) -> None:
    locked = prepared(payload, Content(before)).content
    assert locked is not None
    assert locked.value == before
    assert transaction.on_item(Apply(ID, 7), locked, wire).content == Content(after)
    assert transaction.on_item(Clear(ID, 7), locked, wire).content == Content(before)


def test_a_check_leaves_the_value_whatever_the_wires_step_makes_of_it() -> None:
    locked = prepared(b"new", Content(b"old"), is_check=True).content
    assert locked == Content(b"old", Intent(ID, 7, changes=False, value=None))
    assert transaction.on_item(Apply(ID, 7), locked, wire).content == Content(b"old")


def test_a_rejected_step_locks_nothing_and_says_what_the_wire_says() -> None:
    decided = prepared(b"refused", Content(b"old"))
    assert decided.content is None
    assert decided.is_rejected
    assert transaction.prepare_answer_in(decided.answer) == Failed(b"because")


def test_a_step_that_makes_no_sense_is_an_error_of_the_request() -> None:
    with pytest.raises(RequestError, match="nonsense"):
        prepared(b"nonsense", EMPTY)


@pytest.mark.parametrize("holder", [Intent(OTHER_ID, 7, True, b"x"), Intent(ID, 8, True, b"x")])
def test_an_item_that_another_attempt_holds_is_not_evaluated(holder: Intent) -> None:
    decided = prepared(b"nonsense", Content(b"old", holder))
    assert decided.content is None
    assert decided.is_rejected
    assert transaction.prepare_answer_in(decided.answer) == Held(holder.transaction, holder.attempt)


def test_an_item_is_prepared_once_for_each_attempt() -> None:
    decided = prepared(b"refused", LOCKED)
    assert decided.content is None
    assert transaction.prepare_answer_in(decided.answer) == Ready(b"")


@pytest.mark.parametrize("step", [Apply(OTHER_ID, 7), Apply(ID, 8), Clear(OTHER_ID, 7), Clear(ID, 8)])
def test_only_the_intent_of_the_very_attempt_is_applied_or_cleared(step: Apply | Clear) -> None:
    assert transaction.on_item(step, LOCKED, wire) == Decided(None)


@pytest.mark.parametrize("step", [Apply(ID, 7), Clear(ID, 7)])
def test_applying_and_clearing_a_second_time_does_nothing(step: Apply | Clear) -> None:
    assert transaction.on_item(step, Content(b"later"), wire) == Decided(None)


def test_steps_travel_as_they_are_and_unknown_ones_are_errors_of_the_request() -> None:
    for step in (PREPARE, Apply(ID, 7), Clear(ID, 7), BEGIN, Commit(7), Abort(7), Finish(7), Forget(7)):
        assert transaction.step_in(transaction.payload_of(step)) == step
    with pytest.raises(RequestError, match="no step of a transaction"):
        transaction.step_in(msgspec.msgpack.encode((99, 1)))
    with pytest.raises(CorruptionError):
        transaction.prepare_answer_in(b"")
    with pytest.raises(CorruptionError):
        transaction.record_in(b"\x00")


def test_a_record_opens_with_its_items_and_is_told_without_them() -> None:
    decided = transaction.on_ledger(BEGIN, EMPTY)
    assert decided.content is not None
    assert transaction.record_in(decided.content.value) == Record(State.BEGUN, 7, b"digest", ITEMS, is_kept=False)
    assert transaction.record_in(decided.answer) == Record(State.BEGUN, 7, b"digest", (), is_kept=False)


@pytest.mark.parametrize("further", [(), (Commit(7),), (Abort(7),), (Commit(7), Finish(7))])
def test_beginning_the_same_attempt_again_tells_how_far_it_is(further: tuple[LedgerStep, ...]) -> None:
    before = ledger(BEGIN, *further)
    decided = transaction.on_ledger(BEGIN, before)
    told = transaction.record_in(decided.answer)
    was = transaction.record_in(before.value)
    assert decided.content is None
    assert not decided.is_rejected
    assert told is not None
    assert was is not None
    assert (told.state, told.attempt) == (was.state, 7)


def test_another_attempt_may_begin_only_after_the_first_is_aborted() -> None:
    again = msgspec.structs.replace(BEGIN, attempt=8)
    for further in ((), (Commit(7),), (Commit(7), Finish(7))):
        decided = transaction.on_ledger(again, ledger(BEGIN, *further))
        assert decided.is_rejected
        assert decided.content is None
    begun = record(BEGIN, Abort(7), again)
    assert begun is not None
    assert (begun.state, begun.attempt) == (State.BEGUN, 8)


def test_an_attempt_is_decided_once() -> None:
    for first, second, state in ((Commit(7), Abort(7), State.COMMITTED), (Abort(7), Commit(7), State.ABORTED)):
        before = ledger(BEGIN, first)
        repeated, other = transaction.on_ledger(first, before), transaction.on_ledger(second, before)
        assert (repeated.content, repeated.is_rejected) == (None, False)
        assert (other.content, other.is_rejected) == (None, True)
        told = transaction.record_in(other.answer)
        assert told is not None
        assert told.state is state


@pytest.mark.parametrize("step", [Commit(7), Abort(7)])
def test_nothing_is_decided_of_an_attempt_that_the_ledger_does_not_know(step: Commit | Abort) -> None:
    for before in (EMPTY, ledger(msgspec.structs.replace(BEGIN, attempt=8))):
        decided = transaction.on_ledger(step, before)
        assert (decided.content, decided.is_rejected) == (None, True)


def test_what_is_undecided_or_of_another_attempt_is_neither_finished_nor_forgotten() -> None:
    for step in (Finish(7), Forget(7)):
        assert ledger(BEGIN, step) == ledger(BEGIN)
    for step in (Finish(8), Forget(8)):
        assert ledger(BEGIN, Commit(7), step) == ledger(BEGIN, Commit(7))
    assert ledger(BEGIN, Commit(7), Forget(7)) == ledger(BEGIN, Abort(7), Forget(7)) == EMPTY


def test_a_record_is_finished_once() -> None:
    before = ledger(BEGIN, Commit(7), Finish(7))
    assert transaction.on_ledger(Finish(7), before).content is None
    finished = transaction.record_in(before.value)
    assert finished is not None
    assert finished.is_finished


def test_committed_records_of_tokens_are_kept_ten_minutes_others_one() -> None:
    for steps, kept_s in (
        ((KEPT, Commit(7)), KEPT_S),
        ((KEPT, Abort(7)), DECIDED_KEPT_S),
        ((BEGIN, Commit(7)), DECIDED_KEPT_S),
    ):
        finished = record(*steps, Finish(7))
        assert finished is not None
        assert not transaction.has_expired(finished, age_s=kept_s - 1)
        assert transaction.has_expired(finished, age_s=kept_s)
    unfinished = record(KEPT, Commit(7))
    assert unfinished is not None
    assert not transaction.has_expired(unfinished, age_s=1e9)


def begin(epoch: int) -> Begin:
    return msgspec.structs.replace(BEGIN, attempt=8, epoch=epoch)


@pytest.mark.parametrize("before", [(), (BEGIN, Abort(7))])
def test_where_a_record_was_before_it_may_begin_only_by_a_map_as_new_as_the_bar(before: tuple[LedgerStep, ...]) -> None:
    barred = ledger(*before, Bar(9, 5))
    assert transaction.on_ledger(begin(4), barred).is_rejected
    assert not transaction.on_ledger(begin(5), barred).is_rejected
    assert transaction.on_ledger(begin(5), ledger(*before, Bar(9, 6), Bar(10, 5))).is_rejected
    assert transaction.on_ledger(Commit(7), barred).is_rejected


@pytest.mark.parametrize("further", [(), (Commit(7),), (Commit(7), Finish(7))])
def test_what_has_begun_cannot_be_barred_and_is_told(further: tuple[LedgerStep, ...]) -> None:
    decided = transaction.on_ledger(Bar(9, 5), ledger(BEGIN, *further))
    assert (decided.content, decided.is_rejected) == (None, True)
    assert transaction.record_in(decided.answer) == msgspec.structs.replace(record(BEGIN, *further), items=())  # type: ignore[type-var]


def test_a_bar_stays_whatever_is_said_of_the_attempt_before_and_for_ten_minutes() -> None:
    barred = ledger(BEGIN, Abort(7), Bar(9, 5))
    assert transaction.on_ledger(Forget(7), barred).content is None
    told = transaction.record_in(barred.value)
    assert told is not None
    assert not transaction.has_expired(told, age_s=KEPT_S - 1)
    assert transaction.has_expired(told, age_s=KEPT_S)
    assert transaction.fate(told, 7) is Fate.VOID


def test_the_record_alone_says_what_an_intent_comes_to() -> None:
    assert transaction.fate(None, 7) is Fate.VOID
    assert transaction.fate(record(BEGIN), 7) is Fate.PENDING
    assert transaction.fate(record(BEGIN), 8) is Fate.VOID
    assert transaction.fate(record(BEGIN, Commit(7)), 7) is Fate.COMMITTED
    assert transaction.fate(record(BEGIN, Abort(7)), 7) is Fate.ABORTED


def test_an_intent_that_comes_after_all_was_applied_is_void() -> None:
    """Applied again it would undo what was written since."""
    assert transaction.fate(record(BEGIN, Commit(7), Finish(7)), 7) is Fate.VOID


def test_a_reader_sees_the_new_value_from_the_commit_on() -> None:
    assert transaction.value_seen(LOCKED, Fate.PENDING) == b"old"
    assert transaction.value_seen(LOCKED, Fate.ABORTED) == b"old"
    assert transaction.value_seen(LOCKED, Fate.COMMITTED) == b"new"
    check = Content(b"old", Intent(ID, 7, changes=False, value=None))
    assert transaction.value_seen(check, Fate.COMMITTED) == b"old"


def test_only_a_committed_intent_is_applied() -> None:
    assert transaction.settling(ID, 7, Fate.COMMITTED) == Apply(ID, 7)
    assert transaction.settling(ID, 7, Fate.ABORTED) == transaction.settling(ID, 7, Fate.VOID) == Clear(ID, 7)


def test_it_commits_only_if_every_item_is_ready() -> None:
    ready, failed, held = Ready(b""), Failed(b"why"), Held(OTHER_ID, 1)
    blameless: tuple[Ready | None, ...] = (ready, None)
    assert transaction.outcome([ready, ready]) is Outcome.COMMIT
    assert transaction.outcome([ready, None]) is Outcome.GIVE_UP
    for other in blameless:
        assert transaction.outcome([ready, other, held]) is Outcome.COLLIDE
        assert transaction.outcome([held, other, failed]) is Outcome.CANCEL
    assert transaction.reasons([ready, failed, held, None]) == [
        None,
        Reason(ReasonKind.REJECTED, b"why"),
        Reason(ReasonKind.CONFLICT),
        None,
    ]


def test_two_rounds_of_reads_are_a_snapshot_only_if_versions_and_values_are_the_same() -> None:
    one, two = Version(1, 1, 1), Version(1, 1, 2)
    first = [Seen(one, b"x"), Seen(one, b"x"), Seen(one, b"x")]
    again = [Seen(one, b"x"), Seen(two, b"x"), Seen(one, b"y")]
    assert transaction.moved(first, again) == [False, True, True]
