"""Counting answers: when a write or a read is settled, and whom a read asks next."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from merganser.core.quorum import ReadQuorum, Verdict, WriteQuorum
from merganser.model.ids import NodeId

A, B, C, STRANGER = NodeId("a"), NodeId("b"), NodeId("c"), NodeId("stranger")
D, E = NodeId("d"), NodeId("e")
ABC = (A, B, C)

replica_lists = st.integers(1, 6).map(lambda n: tuple(NodeId(f"n{i}") for i in range(n)))


@st.composite
def answers(draw: st.DrawFn) -> tuple[tuple[NodeId, ...], int, list[tuple[NodeId, bool]]]:
    """(replicas, required, answers in the order they come: who, and whether it is a good one)."""
    replicas = draw(replica_lists)
    sender = st.sampled_from((*replicas, STRANGER))
    return replicas, draw(st.integers(1, 7)), draw(st.lists(st.tuples(sender, st.booleans()), max_size=20))


# Writes


def test_write_succeeds_with_the_required_ack_and_says_so_once() -> None:
    quorum = WriteQuorum(ABC, required=2)
    assert [quorum.acked(A), quorum.acked(B), quorum.acked(C)] == [False, True, False]
    assert quorum.verdict is Verdict.SUCCEEDED
    assert quorum.acks == 3


def test_write_is_hopeless_as_soon_as_too_few_are_left() -> None:
    quorum = WriteQuorum(ABC, required=2)
    assert [quorum.failed(A), quorum.failed(B)] == [False, True]
    assert quorum.verdict is Verdict.HOPELESS


def test_write_to_fewer_replicas_than_required_is_hopeless_from_the_start() -> None:
    assert WriteQuorum((A,), required=2).verdict is Verdict.HOPELESS
    assert WriteQuorum((), required=1).verdict is Verdict.HOPELESS


def test_ack_after_the_verdict_saves_a_hint() -> None:
    quorum = WriteQuorum(ABC, required=1)
    quorum.acked(A)
    assert quorum.silent() == {B, C}
    quorum.acked(B)
    assert quorum.silent() == {C}


def test_failed_replica_needs_a_hint() -> None:
    quorum = WriteQuorum(ABC, required=1)
    quorum.failed(A)
    quorum.acked(B)
    assert quorum.silent() == {A, C}


def test_repeated_and_forged_acks_count_for_nothing() -> None:
    quorum = WriteQuorum(ABC, required=2)
    assert not any([quorum.acked(A), quorum.acked(A), quorum.acked(STRANGER)])
    assert (quorum.acks, quorum.verdict) == (1, Verdict.OPEN)


@given(case=answers())
def test_write_verdict_is_what_the_counts_say_and_never_changes(
    case: tuple[tuple[NodeId, ...], int, list[tuple[NodeId, bool]]],
) -> None:
    replicas, required, sequence = case
    quorum = WriteQuorum(replicas, required=required)
    heard: dict[NodeId, bool] = {}
    for replica, is_ack in sequence:
        before = quorum.verdict
        settled = quorum.acked(replica) if is_ack else quorum.failed(replica)
        if replica in replicas:
            heard.setdefault(replica, is_ack)
        assert settled == (before is Verdict.OPEN and quorum.verdict is not Verdict.OPEN)
        assert before in (Verdict.OPEN, quorum.verdict)
        acks = sum(heard.values())
        assert quorum.acks == acks
        assert quorum.silent() == {replica for replica in replicas if not heard.get(replica)}
        assert {node for node in (*replicas, STRANGER) if quorum.is_pending(node)} == set(replicas) - set(heard)
        possible = len(replicas) - len(heard) + acks
        assert (quorum.verdict is Verdict.SUCCEEDED) == (acks >= required)
        assert (quorum.verdict is Verdict.HOPELESS) == (possible < required)


# Sloppy writes


def sloppy(required: int, primaries: int = 0) -> WriteQuorum:
    return WriteQuorum(ABC, required=required, required_primaries=primaries)


def test_a_hint_on_a_fallback_counts_as_a_node_that_has_the_write() -> None:
    quorum = sloppy(2)
    quorum.acked(A)
    quorum.enlist(D)
    assert quorum.hinted(D)
    assert (quorum.verdict, quorum.acks, quorum.primary_acks) == (Verdict.SUCCEEDED, 2, 1)
    assert quorum.silent() == {B, C}


def test_hints_do_not_count_as_primaries() -> None:
    quorum = sloppy(2, primaries=2)
    quorum.enlist(D)
    assert [quorum.acked(A), quorum.hinted(D), quorum.acked(B)] == [False, False, True]


def test_primaries_out_of_reach_make_a_write_that_insists_on_them_hopeless_whatever_fallbacks_do() -> None:
    quorum = sloppy(2, primaries=2)
    quorum.enlist(D)
    quorum.enlist(E)
    assert [quorum.failed(A), quorum.failed(B)] == [False, True]
    assert quorum.verdict is Verdict.HOPELESS


def test_an_enlisted_fallback_keeps_hope_alive_until_it_fails_as_well() -> None:
    quorum = sloppy(2)
    quorum.enlist(D)
    assert not any([quorum.failed(A), quorum.failed(B)])
    assert quorum.hint_failed(D)
    assert quorum.verdict is Verdict.HOPELESS


def test_a_coordinator_that_keeps_hints_for_several_counts_once() -> None:
    quorum = sloppy(2)
    quorum.enlist(D)
    quorum.enlist(D)
    assert not quorum.hint_failed(D)
    assert not quorum.hinted(D)
    assert not quorum.hinted(D)
    assert quorum.acks == 1


def test_a_primary_that_keeps_a_hint_for_another_counts_once() -> None:
    quorum = sloppy(2)
    quorum.enlist(A)
    assert [quorum.acked(A), quorum.hinted(A)] == [False, False]
    assert quorum.acks == 1
    assert [quorum.failed(B), quorum.failed(C)] == [False, True], "nobody else can have it"


def test_hints_of_fallbacks_that_were_not_enlisted_count_for_nothing() -> None:
    quorum = sloppy(1)
    assert not quorum.hinted(D)
    assert not quorum.hint_failed(D)
    assert (quorum.acks, quorum.verdict) == (0, Verdict.OPEN)


sloppy_events = st.lists(
    st.tuples(st.sampled_from(["acked", "failed", "enlist", "hinted", "hint_failed"]), st.sampled_from("abcde")),
    max_size=25,
)


@given(required=st.integers(1, 3), primaries=st.integers(0, 3), events=sloppy_events)
def test_sloppy_write_verdict_is_what_the_counts_say(
    required: int, primaries: int, events: list[tuple[str, str]]
) -> None:
    quorum = sloppy(required, primaries)
    acked, failed, hinted, enlisted = set[str](), set[str](), set[str](), list[str]()
    for what, name in events:
        before = quorum.verdict
        node = NodeId(name)
        settled = getattr(quorum, what)(node)
        is_pending = name in "abc" and name not in acked | failed
        if what in ("acked", "failed") and is_pending:
            (acked if what == "acked" else failed).add(name)
        elif what == "enlist":
            enlisted.append(name)
        elif what == "hinted" and name in enlisted:
            hinted.add(name)
            enlisted = [other for other in enlisted if other != name]
        elif what == "hint_failed" and name in enlisted:
            enlisted.remove(name)
        assert before in (Verdict.OPEN, quorum.verdict), "a verdict stays"
        assert quorum.acks == len(acked | hinted)
        pending = set("abc") - acked - failed
        assert quorum.is_complete == (not pending and not enlisted)
        if before is not Verdict.OPEN or what == "enlist":
            assert not settled
            continue
        assert settled == (quorum.verdict is not Verdict.OPEN)
        is_met = len(acked | hinted) >= required and len(acked) >= primaries
        can_be_met = len(acked | hinted | pending | set(enlisted)) >= required and len(acked | pending) >= primaries
        assert (quorum.verdict is Verdict.SUCCEEDED) == is_met
        assert (quorum.verdict is Verdict.HOPELESS) == (not can_be_met)


# Reads


def test_read_asks_the_first_required_replicas_in_the_order_given() -> None:
    assert ReadQuorum((C, A, B), required=2).first() == (C, A)


def test_read_succeeds_with_the_required_reply_and_says_so_once() -> None:
    quorum: ReadQuorum[bytes | None] = ReadQuorum(ABC, required=2)
    assert [quorum.answered(A, b"row"), quorum.answered(B, None)] == [False, True]
    assert quorum.verdict is Verdict.SUCCEEDED
    assert quorum.replies == {A: b"row", B: None}


def test_failed_replica_is_replaced_by_the_next() -> None:
    quorum: ReadQuorum[bytes | None] = ReadQuorum(ABC, required=2)
    assert quorum.failed(A) == C
    assert quorum.failed(A) is None
    quorum.answered(B, b"row")
    assert quorum.answered(C, b"row")


def test_read_is_hopeless_when_nobody_is_left_to_replace_the_failed() -> None:
    quorum: ReadQuorum[bytes | None] = ReadQuorum(ABC, required=2)
    quorum.failed(A)
    assert quorum.failed(B) is None
    assert quorum.verdict is Verdict.HOPELESS


def test_read_of_more_replicas_than_there_are_is_hopeless_from_the_start() -> None:
    quorum: ReadQuorum[bytes | None] = ReadQuorum((A,), required=2)
    assert quorum.verdict is Verdict.HOPELESS
    assert quorum.hedge() is None


def test_hedge_asks_the_next_replica_until_none_is_left() -> None:
    quorum: ReadQuorum[bytes | None] = ReadQuorum(ABC, required=1)
    assert [quorum.hedge(), quorum.hedge(), quorum.hedge()] == [B, C, None]
    assert quorum.answered(C, b"row")


def test_settled_read_asks_nobody_more() -> None:
    quorum: ReadQuorum[bytes | None] = ReadQuorum(ABC, required=1)
    quorum.hedge()
    quorum.answered(A, b"row")
    assert quorum.hedge() is None
    assert quorum.failed(B) is None


def test_reply_after_the_verdict_is_recorded() -> None:
    quorum: ReadQuorum[bytes | None] = ReadQuorum(ABC, required=1)
    quorum.hedge()
    quorum.answered(A, b"new")
    assert not quorum.answered(B, b"old")
    assert quorum.replies == {A: b"new", B: b"old"}


def test_reply_of_one_that_was_not_asked_changes_nothing() -> None:
    quorum: ReadQuorum[bytes | None] = ReadQuorum(ABC, required=1)
    assert not quorum.answered(B, b"forged")
    assert not quorum.answered(STRANGER, b"forged")
    assert (quorum.replies, quorum.verdict) == ({}, Verdict.OPEN)


def test_repeated_reply_does_not_replace_the_first() -> None:
    quorum: ReadQuorum[bytes | None] = ReadQuorum(ABC, required=2)
    quorum.answered(A, b"first")
    assert not quorum.answered(A, b"second")
    assert quorum.replies == {A: b"first"}


@given(case=answers(), hedges=st.sets(st.integers(0, 19)))
def test_read_verdict_is_what_the_counts_say_and_enough_replicas_are_always_asked(
    case: tuple[tuple[NodeId, ...], int, list[tuple[NodeId, bool]]], hedges: set[int]
) -> None:
    replicas, required, sequence = case
    quorum: ReadQuorum[bytes | None] = ReadQuorum(replicas, required=required)
    asked, failed = list(quorum.first()), set[NodeId]()
    for step, (replica, is_reply) in enumerate(sequence):
        if step in hedges and (another := quorum.hedge()):
            asked.append(another)
        before = quorum.verdict
        if is_reply:
            settled = quorum.answered(replica, b"row")
            assert settled == (before is Verdict.OPEN and quorum.verdict is Verdict.SUCCEEDED)
        else:
            if replica in asked and replica not in quorum.replies:
                failed.add(replica)
            if another := quorum.failed(replica):
                asked.append(another)
        assert before in (Verdict.OPEN, quorum.verdict)
        assert tuple(asked) == replicas[: len(asked)]
        assert set(quorum.replies) <= set(asked) - failed
        assert (quorum.verdict is Verdict.SUCCEEDED) == (len(quorum.replies) >= required)
        assert (quorum.verdict is Verdict.HOPELESS) == (len(replicas) - len(failed) < required)
        if quorum.verdict is Verdict.OPEN:
            assert len(asked) - len(failed) >= required


# Sloppy reads


def sloppy_read(*order: NodeId, required: int, primaries: int = 0) -> ReadQuorum[bytes | None]:
    return ReadQuorum(order, required=required, primaries=ABC, required_primaries=primaries)


def test_fallbacks_are_asked_in_the_order_given_and_count_as_replies() -> None:
    quorum = sloppy_read(A, D, B, C, required=2)
    assert quorum.first() == (A, D)
    assert [quorum.answered(A, b"row"), quorum.answered(D, None)] == [False, True]


def test_a_read_that_insists_on_primaries_asks_enough_of_them_first() -> None:
    quorum = sloppy_read(A, D, E, B, C, required=3, primaries=2)
    assert quorum.first() == (A, D, B)
    assert [quorum.answered(A, b"row"), quorum.answered(D, None), quorum.answered(B, None)] == [False, False, True]


def test_a_failed_primary_that_is_needed_is_replaced_by_a_primary() -> None:
    quorum = sloppy_read(A, D, E, B, C, required=2, primaries=1)
    assert quorum.first() == (A, D)
    assert quorum.failed(A) == B
    assert quorum.failed(D) == E


def test_a_read_is_hopeless_without_the_primaries_it_insists_on() -> None:
    quorum = sloppy_read(A, D, E, B, C, required=2, primaries=2)
    assert [quorum.failed(A), quorum.failed(B)] == [C, None]
    assert quorum.verdict is Verdict.HOPELESS


def test_a_hedge_may_be_for_primaries_only() -> None:
    quorum = sloppy_read(A, D, B, required=1)
    assert [quorum.hedge(only_primaries=True), quorum.hedge(only_primaries=True), quorum.hedge()] == [B, None, D]


@given(
    order=st.permutations(list("abcde")),
    required=st.integers(1, 4),
    primaries=st.integers(0, 3),
    events=st.lists(
        st.tuples(st.sampled_from(["answered", "failed", "hedge", "hedge primary"]), st.sampled_from("abcde"))
    ),
)
def test_sloppy_read_verdict_is_what_the_counts_say_and_enough_are_always_asked(
    order: list[str], required: int, primaries: int, events: list[tuple[str, str]]
) -> None:
    primaries = min(primaries, required)
    quorum = sloppy_read(*map(NodeId, order), required=required, primaries=primaries)
    asked, replied, failed = set(quorum.first()), set[str](), set[str]()
    for what, name in events:
        node = NodeId(name)
        is_pending = node in asked and name not in replied | failed
        another = None
        if what == "answered":
            quorum.answered(node, b"row")
            replied |= {name} if is_pending else set()
        elif what == "failed":
            failed |= {name} if is_pending else set()
            another = quorum.failed(node)
        else:
            another = quorum.hedge(only_primaries=what == "hedge primary")
            assert another is None or what == "hedge" or another in ABC
        if another is not None:
            assert another not in asked
            asked.add(another)
        left = set("abcde") - failed
        can_be_met = len(left) >= required and len(left & set("abc")) >= primaries
        is_met = len(replied) >= required and len(replied & set("abc")) >= primaries
        assert set(quorum.replies) == replied
        assert is_met or quorum.verdict is not Verdict.SUCCEEDED
        assert not can_be_met or quorum.verdict is not Verdict.HOPELESS
        if quorum.verdict is Verdict.OPEN:
            assert can_be_met
            assert not is_met
            assert len(asked - failed) >= required
            assert len((asked - failed) & set(ABC)) >= primaries
