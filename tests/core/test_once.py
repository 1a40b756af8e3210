from __future__ import annotations

from merganser.core.once import GAP_S_MAX, Once


def test_a_request_is_remembered_for_a_while_and_then_forgotten() -> None:
    once = Once[str](keep_s=2 * GAP_S_MAX, most=10)
    once.note(b"r", "done", 0.0)
    assert not once.is_full(GAP_S_MAX)
    assert once.of(b"r") == "done"
    assert not once.is_full(2 * GAP_S_MAX)
    assert once.of(b"r") is None


def test_what_became_of_a_request_first_is_what_is_remembered_until_it_is_replaced() -> None:
    once = Once[str](keep_s=10.0, most=10)
    once.note(b"r", "under way", 0.0)
    once.note(b"r", "refused", 0.0)
    assert once.of(b"r") == "under way"
    once.replace(b"r", "done")
    assert once.of(b"r") == "done"


def test_nothing_is_forgotten_because_nobody_looked_for_long() -> None:
    once = Once[str](keep_s=30.0, most=10)
    once.note(b"r", "done", 0.0)
    assert not once.is_full(1000.0)
    assert once.of(b"r") == "done"


def test_it_says_when_no_other_can_be_remembered() -> None:
    once = Once[str](keep_s=1.0, most=2)
    once.note(b"1", "done", 0.0)
    assert not once.is_full(0.0)
    once.note(b"2", "done", 0.0)
    assert once.is_full(0.5)
    assert not once.is_full(1.0)


def test_a_node_that_refuses_for_hours_remembers_no_more_than_what_came_of_late() -> None:
    once = Once[str](keep_s=30.0, most=10)
    for second in range(3600):
        once.note(b"%d" % second, "refused", float(second))
    assert len(once) == 30


def heavy() -> Once[str]:
    return Once[str](keep_s=30.0, most=100, weight_max=10, weight_of=len, lightened=lambda _outcome: "")


def test_the_oldest_outcomes_are_made_lighter_when_all_together_weigh_too_much() -> None:
    once = heavy()
    once.note(b"1", "four", 0.0)
    once.note(b"2", "", 0.0)
    once.replace(b"2", "fours")
    once.note(b"3", "4444", 0.0)
    assert [once.of(request) for request in (b"1", b"2", b"3")] == ["", "fours", "4444"]


def test_what_is_forgotten_weighs_nothing() -> None:
    once = heavy()
    once.note(b"1", "0123456789", 0.0)
    for second in range(1, 31):
        once.is_full(float(second))
    once.note(b"2", "0123456789", 30.0)
    assert (once.of(b"1"), once.of(b"2")) == (None, "0123456789")


def test_what_is_remembered_of_weights_is_bounded_for_one_that_runs_for_hours() -> None:
    once = heavy()
    for second in range(3600):
        once.note(b"%d" % second, "four", float(second))
    assert len(once._heavy) <= 2
    assert once._weight <= 10


def test_an_outcome_that_alone_weighs_too_much_is_made_lighter_at_once() -> None:
    once = heavy()
    once.note(b"1", "0123456789+", 0.0)
    assert once.of(b"1") == ""
