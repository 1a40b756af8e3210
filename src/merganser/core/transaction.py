"""Decide what becomes of several items at once: locks without waiting, one record that says how it ended.

A transaction has a record in the ledger, and an *intent* on each of its items, which locks the item and says what it
will be. Record and items are registers; each step below is evaluated by the leader of its register::

    (absent) --Begin--> BEGUN --Commit--> COMMITTED --Finish--> COMMITTED, finished --Forget--> (absent)
                          |                    \\----------------------Forget----------------------^
                          +----Abort--> ABORTED ----------------------Forget----------------------/
                                           \\--Begin, another attempt--> BEGUN
    (absent), ABORTED --Bar--> ABORTED, barred: BEGUN again only by whoever knows of the change that it was barred for

    item:  value --Prepare--> value + intent --Apply--> new value
                                             \\--Clear--> value

The coordinator begins, prepares all items, and commits if all are locked, else aborts. It commits at most once an
attempt, and nobody else commits. Everybody may abort an attempt that is BEGUN: the coordinator then finds its
commit refused. What an intent means follows from the record alone (`fate`), so whoever meets one can go on.

Invariants:

- The record of an attempt is COMMITTED or ABORTED, once, and never the other.
- An attempt is COMMITTED only after every one of its items carried its intent at once; from the first Prepare until
  it is decided nobody else changes them.
- Of the ledgers that the record of one token may be in, because the policy of a table has changed (`core.ledgers`), at
  most one has it BEGUN or COMMITTED for coordinators of one map: whoever begins in the one that its map says bars the
  others first, for all who know but an older map.
- A record is finished or removed only after no item has a rightful intent of it any more. So an intent whose record
  is absent, finished, or of another attempt is void: a message came late.

Source: Eswaran 1976, "The Notions of Consistency and Predicate Locks" (two-phase locking); Gray 1978, "Notes on Data
Base Operating Systems", §5.8 (two-phase commit); Idziorek 2023, "Distributed Transactions at Scale in Amazon
DynamoDB", §4 (a ledger that any node can finish from).
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from merganser.model.errors import CorruptionError, RequestError
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
    ItemStep,
    LedgerStep,
    Prepare,
    PrepareAnswer,
    Ready,
    Reason,
    ReasonKind,
    Record,
    State,
)

ITEMS_MAX: Final = 100
"""As DynamoDB: all are locked until the slowest is."""

KEPT_S: Final = 600.0
"""How long a client may repeat a committed request under its token, as in DynamoDB."""

DECIDED_KEPT_S: Final = 60.0
"""How long a record stays that somebody else than its coordinator has finished: it may still ask how it ended."""

ATTEMPT_BITS: Final = 62
"""Of the number that tells attempts apart: it is drawn, so that none comes back after the ledger has forgotten it."""

_ENCODER = msgspec.msgpack.Encoder()
_RECORDS = msgspec.msgpack.Decoder(Record)
_STEPS: msgspec.msgpack.Decoder[ItemStep | LedgerStep] = msgspec.msgpack.Decoder(ItemStep | LedgerStep)
_PREPARE_ANSWERS: msgspec.msgpack.Decoder[PrepareAnswer] = msgspec.msgpack.Decoder(PrepareAnswer)

Evaluate = Callable[[bytes, bytes | None], Decided]
"""Of the wire that the item's table belongs to: from the payload and the current value to what becomes of it."""


class Fate(enum.Enum):
    """What an intent comes to, by its record."""

    PENDING = "pending"
    """Undecided: the value is the old one as yet."""
    COMMITTED = "committed"
    """The value is the new one, though the item does not say so yet."""
    ABORTED = "aborted"
    """The value is the old one, and nothing will change it on behalf of this attempt."""
    VOID = "void"
    """The record knows nothing of it: by now the item has no intent of this attempt, or one that came late and counts
    for nothing. Look again after clearing it."""


class Outcome(enum.Enum):
    """What a coordinator does after its items have answered."""

    COMMIT = "commit"
    CANCEL = "cancel"
    """An item's step was rejected, and the client is told which."""
    COLLIDE = "collide"
    """Nothing but other transactions is in the way: another attempt may find them gone."""
    GIVE_UP = "give up"
    """Not all items answered."""


def payload_of(step: ItemStep | LedgerStep) -> bytes:
    """Return what travels to the leader."""
    return _ENCODER.encode(step)


def step_in(payload: bytes) -> ItemStep | LedgerStep:
    """Return the step that travelled.

    Raises:
        RequestError: there is none that this release understands.
    """
    try:
        return _STEPS.decode(payload)
    except msgspec.DecodeError as error:
        raise RequestError(
            f"no step of a transaction that this release knows ({error}): run the same everywhere"
        ) from None


def prepare_answer_in(answer: bytes) -> PrepareAnswer:
    """Return what an item answered to Prepare.

    Raises:
        CorruptionError: it is none.
    """
    try:
        return _PREPARE_ANSWERS.decode(answer)
    except msgspec.DecodeError as error:
        raise CorruptionError(f"not an answer to the preparation of a transaction: {error}") from None


def record_in(value: bytes | None) -> Record | None:
    """Return the record that a ledger item, or an answer of the ledger, holds; None for nothing.

    Raises:
        CorruptionError: it is none.
    """
    if not value:
        return None
    try:
        return _RECORDS.decode(value)
    except msgspec.DecodeError as error:
        raise CorruptionError(f"not a record of a transaction: {error}") from None


def on_item(step: ItemStep, content: Content, evaluate: Evaluate) -> Decided:
    """Return what ``step`` makes of an item.

    Raises:
        RequestError: as ``evaluate``.
    """
    if isinstance(step, Prepare):
        return _prepare(step, content, evaluate)
    intent = content.intent
    if intent is None or not _is_of(intent, step.transaction, step.attempt):
        return Decided(None)
    value = intent.value if isinstance(step, Apply) and intent.changes else content.value
    return Decided(EMPTY if value is None else Content(value))


def _prepare(step: Prepare, content: Content, evaluate: Evaluate) -> Decided:
    intent = content.intent
    if intent is not None:
        if _is_of(intent, step.transaction, step.attempt):
            return Decided(None, _ENCODER.encode(Ready(b"")))
        return Decided(None, _ENCODER.encode(Held(intent.transaction, intent.attempt)), is_rejected=True)
    decided = evaluate(step.payload, content.value)
    if decided.is_rejected:
        return Decided(None, _ENCODER.encode(Failed(decided.answer)), is_rejected=True)
    becomes = None if step.is_check else decided.content
    locked = Intent(
        step.transaction,
        step.attempt,
        changes=becomes is not None,
        value=None if becomes is None else becomes.value,
    )
    return Decided(Content(content.value, locked), _ENCODER.encode(Ready(decided.answer)))


def _is_of(intent: Intent, transaction: bytes, attempt: int) -> bool:
    return intent.attempt == attempt and intent.transaction == transaction


def on_ledger(step: LedgerStep, content: Content) -> Decided:
    """Return what ``step`` makes of a record.

    Raises:
        CorruptionError: what is there is no record.
    """
    record = record_in(content.value)
    if isinstance(step, Begin):
        return _begin(step, record)
    if isinstance(step, Bar):
        return _bar(step, record)
    if record is None or record.attempt != step.attempt:
        return _stays(record, is_rejected=isinstance(step, Commit | Abort))
    match step:
        case Commit():
            return _decide(record, State.COMMITTED)
        case Abort():
            return _decide(record, State.ABORTED)
        case Finish() if record.state is not State.BEGUN and not record.is_finished:
            return _becomes(msgspec.structs.replace(record, is_finished=True))
        case Forget() if record.state is not State.BEGUN:
            return Decided(EMPTY)
    return _stays(record)


def _begin(step: Begin, record: Record | None) -> Decided:
    if record is not None and record.attempt == step.attempt:
        return _stays(record)
    if record is None or (record.state is State.ABORTED and record.barred <= step.epoch):
        return _becomes(Record(State.BEGUN, step.attempt, step.digest, step.items, step.is_kept))
    return _stays(record, is_rejected=True)


def _bar(step: Bar, record: Record | None) -> Decided:
    """The attempt that was aborted, if there was one, is void from now on, as it is when another begins."""
    if record is not None and record.state is not State.ABORTED:
        return _stays(record, is_rejected=True)
    barred = step.epoch if record is None else max(step.epoch, record.barred)
    return _becomes(Record(State.ABORTED, step.attempt, b"", (), is_kept=True, is_finished=True, barred=barred))


def _decide(record: Record, state: State) -> Decided:
    if record.state is State.BEGUN:
        return _becomes(msgspec.structs.replace(record, state=state))
    return _stays(record, is_rejected=record.state is not state)


def _becomes(record: Record) -> Decided:
    return Decided(Content(_ENCODER.encode(record)), _told(record))


def _stays(record: Record | None, *, is_rejected: bool = False) -> Decided:
    return Decided(None, b"" if record is None else _told(record), is_rejected=is_rejected)


def _told(record: Record) -> bytes:
    return _ENCODER.encode(msgspec.structs.replace(record, items=()))


def has_expired(record: Record, *, age_s: float) -> bool:
    """Tell whether a record has been kept long enough, if it has been as it is for ``age_s`` at least."""
    is_long = record.is_kept and (record.state is State.COMMITTED or record.barred > 0)
    kept_s = KEPT_S if is_long else DECIDED_KEPT_S
    return record.is_finished and age_s >= kept_s


def fate(record: Record | None, attempt: int) -> Fate:
    """Return what an intent of ``attempt`` comes to, by the record as it was *after* the intent was met."""
    if record is None or record.attempt != attempt:
        return Fate.VOID
    if record.state is State.BEGUN:
        return Fate.PENDING
    if record.state is State.ABORTED:
        return Fate.ABORTED
    return Fate.VOID if record.is_finished else Fate.COMMITTED


def settling(transaction: bytes, attempt: int, fate: Fate) -> Apply | Clear:
    """Return the step that takes an intent of that fate off its item."""
    assert fate is not Fate.PENDING, "nobody may touch the intent of a transaction that is undecided"
    return Apply(transaction, attempt) if fate is Fate.COMMITTED else Clear(transaction, attempt)


def value_seen(content: Content, fate: Fate) -> bytes | None:
    """Return what a reader sees of an item whose intent has that fate."""
    assert fate is not Fate.VOID, "a reader looks again"
    intent = content.intent
    if intent is not None and intent.changes and fate is Fate.COMMITTED:
        return intent.value
    return content.value


def outcome(answers: Sequence[PrepareAnswer | None]) -> Outcome:
    """Return what follows from the answers of all items, None for those that did not answer."""
    if all(isinstance(answer, Ready) for answer in answers):
        return Outcome.COMMIT
    if any(isinstance(answer, Failed) for answer in answers):
        return Outcome.CANCEL
    if any(isinstance(answer, Held) for answer in answers):
        return Outcome.COLLIDE
    return Outcome.GIVE_UP


def reasons(answers: Sequence[PrepareAnswer | None]) -> list[Reason | None]:
    """Return for each item why it keeps the transaction from happening, None if it does not."""
    return [_reason(answer) for answer in answers]


def _reason(answer: PrepareAnswer | None) -> Reason | None:
    match answer:
        case Failed(rejection):
            return Reason(ReasonKind.REJECTED, rejection)
        case Held():
            return Reason(ReasonKind.CONFLICT)
    return None


class Seen(msgspec.Struct, frozen=True):
    """What a read transaction saw of an item."""

    version: Version
    value: bytes | None


def moved(earlier: Sequence[Seen], later: Sequence[Seen]) -> list[bool]:
    """Tell for each item whether it was another in the later of two rounds of reads.

    If none was, all of them were so at any instant between the rounds. The version alone does not tell: the value
    under a version with an intent becomes another when its transaction commits.
    """
    return [one != other for one, other in zip(earlier, later, strict=True)]
