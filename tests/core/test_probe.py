"""One probe: what answers it, and when its failure is likely the prober's own fault."""

from __future__ import annotations

from merganser.core.probe import Probe
from merganser.model.ids import NodeId

ANN, BEN, EVE, MAX = map(NodeId, ("ann", "ben", "eve", "max"))


def probe_of_ann() -> Probe:
    return Probe(ANN, 7, timeout_at_s=0.5, ends_s=1.0)


def test_a_probe_is_looked_at_when_the_timeout_is_over_and_then_at_the_end_of_the_period() -> None:
    probe = probe_of_ann()
    assert probe.due_s == 0.5
    probe.ask_others([BEN])
    assert probe.due_s == 1.0


def test_an_answered_probe_waits_for_the_end_of_the_period() -> None:
    probe = probe_of_ann()
    assert probe.acked(ANN, 7)
    assert probe.due_s == 1.0


def test_an_ack_counts_from_the_target_and_from_relays_that_were_asked_only() -> None:
    probe = probe_of_ann()
    assert not probe.acked(BEN, 7), "it was not asked"
    probe.ask_others([BEN])
    assert not probe.acked(EVE, 7)
    assert probe.acked(BEN, 7)


def test_an_ack_to_another_ping_counts_for_nothing() -> None:
    probe = probe_of_ann()
    assert not probe.acked(ANN, 6)
    assert not probe.is_answered


def test_a_second_ack_is_none() -> None:
    probe = probe_of_ann()
    assert probe.acked(ANN, 7)
    assert not probe.acked(ANN, 7)


def test_the_fault_is_the_targets_when_every_relay_says_that_it_is_there() -> None:
    probe = probe_of_ann()
    probe.ask_others([BEN, EVE])
    for sender, number in ((BEN, 7), (BEN, 7), (MAX, 7), (EVE, 8)):  # again, not asked, of another probe
        probe.nacked(sender, number)
        assert probe.is_own_fault_likely
    probe.nacked(EVE, 7)
    assert not probe.is_own_fault_likely


def test_without_relays_nobody_vouches_for_the_prober() -> None:
    probe = probe_of_ann()
    probe.ask_others([])
    assert probe.is_own_fault_likely
