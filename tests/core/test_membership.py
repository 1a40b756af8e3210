"""Membership: the claims of SWIM and Lifeguard, one test each."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.membership_by_hand import CLUSTER, PERIOD_S, Cluster, names_of
from merganser.core.membership import (
    RELAYED_MAX,
    RELAYS,
    Answered,
    Changed,
    Effect,
    Heard,
    MembersAre,
    Membership,
    Send,
    SendReliably,
    Woken,
)
from merganser.core.suspicion import ACCUSERS_MAX
from merganser.model.gossip import (
    INCARNATION_MAX,
    PACKET_BYTES_MAX,
    Ack,
    Claim,
    Nack,
    Packet,
    Ping,
    PingRequest,
    State,
)
from merganser.model.ids import NodeId
from merganser.net.packets import encode

ME, ANN, BEN, EVE, MAX = names_of(5)
ALL = (ME, ANN, BEN, EVE, MAX)


class One:
    """One member, spoken to by hand."""

    def __init__(self, *members: NodeId) -> None:
        self.now_s = 0.0
        self.it = Membership(ME, draw=random.Random(1).randrange, now_s=0.0)
        self.it.step(MembersAre((ME, *members)), 0.0)

    def hear(
        self, sender: NodeId, body: Ping | PingRequest | Ack | Nack, *claims: Claim, incarnation: int = 0
    ) -> list[Effect]:
        return self.it.step(Heard(Packet(sender, incarnation, body, claims)), self.now_s)

    def wake(self, *, late_s: float = 0.0) -> list[Effect]:
        """Let time pass until it wants to be woken."""
        self.now_s = max(self.now_s, self.it.due_s) + late_s
        return self.it.step(Woken(), self.now_s)

    def probe(self) -> tuple[NodeId, int]:
        """Let it begin its next probe; returns whom it pings, and the ping's number."""
        for _ in range(10):
            for effect in self.wake():
                if type(effect) is Send and type(effect.packet.body) is Ping:
                    return effect.to, effect.packet.body.number
        raise AssertionError("it probes nobody")

    def suspect(self, node: NodeId, *accusers: NodeId, incarnation: int = 0) -> list[Effect]:
        return self.hear(accusers[0], Ping(1), Claim(node, State.SUSPECT, incarnation, tuple(sorted(accusers))))


def sent(effects: list[Effect], body: type) -> list[Send]:
    return [effect for effect in effects if type(effect) is Send and type(effect.packet.body) is body]


def changed(effects: list[Effect]) -> list[tuple[NodeId, State]]:
    return [(effect.node, effect.state) for effect in effects if type(effect) is Changed]


# Probing (SWIM §3.1, §4.3).


def test_a_ping_is_answered_by_an_ack_of_its_number_that_claims_to_be_alive() -> None:
    one = One(ANN)
    assert one.hear(ANN, Ping(7)) == [Send(ANN, Packet(ME, 0, Ack(7)))]


def test_a_period_pings_one_member_and_an_answer_ends_the_matter() -> None:
    one = One(ANN)
    target, number = one.probe()
    assert target == ANN
    one.hear(ANN, Ack(number))
    effects = one.wake()
    assert [effect.to for effect in sent(effects, Ping)] == [ANN], "the next period"
    assert changed(effects) == []


def test_silence_has_others_ping_and_a_connection_tried_within_the_same_period() -> None:
    one = One(ANN, BEN, EVE, MAX)
    target, number = one.probe()
    began_s = one.now_s
    effects = one.wake()
    asked = [effect.to for effect in sent(effects, PingRequest)]
    assert len(asked) == RELAYS
    assert target not in asked
    assert {effect.packet.body for effect in sent(effects, PingRequest)} == {PingRequest(number, target)}
    [reliable] = [effect for effect in effects if type(effect) is SendReliably]
    assert (reliable.to, reliable.packet.body) == (target, Ping(number))
    assert one.now_s + reliable.timeout_s == pytest.approx(began_s + PERIOD_S)


def test_a_member_asked_to_help_pings_and_passes_the_ack_on() -> None:
    one = One(ANN, BEN)
    [ping] = sent(one.hear(ANN, PingRequest(7, BEN)), Ping)
    assert ping.to == BEN
    assert isinstance(ping.packet.body, Ping)
    assert one.hear(EVE, Ack(ping.packet.body.number)) == [], "not from whom it was asked of"
    assert one.hear(BEN, Ack(ping.packet.body.number)) == [Send(ANN, Packet(ME, 0, Ack(7)))]


def test_a_member_asked_to_help_says_in_time_that_it_is_there_but_the_other_is_silent() -> None:
    one = One(ANN, BEN)
    one.hear(ANN, PingRequest(7, BEN))
    asked_s = one.now_s
    effects: list[Effect] = []
    while not sent(effects, Nack):
        effects = one.wake()
    assert sent(effects, Nack) == [Send(ANN, Packet(ME, 0, Nack(7)))]
    assert one.now_s - asked_s < PERIOD_S / 2, "its asker waits for half a period"


def test_help_is_bounded() -> None:
    one = One(ANN, BEN)
    answers = [one.hear(ANN, PingRequest(number, BEN)) for number in range(RELAYED_MAX + 1)]
    assert all(answers[:-1])
    assert answers[-1] == []


def test_help_with_a_stranger_is_not_given() -> None:
    assert One(ANN).hear(ANN, PingRequest(7, NodeId("stranger"))) == []


def test_who_stays_silent_directly_and_through_others_is_suspected_and_told_so() -> None:
    one = One(ANN, BEN)
    target, _ = one.probe()
    one.wake()
    effects = one.wake()
    assert changed(effects) == [(target, State.SUSPECT)]
    accusation = Claim(target, State.SUSPECT, 0, (ME,))
    assert accusation in sent(effects, Ping)[0].packet.claims
    assert sent(effects, Ping)[0].to == target


def test_an_ack_through_another_saves_the_target() -> None:
    one = One(ANN, BEN)
    target, number = one.probe()
    [request] = sent(one.wake(), PingRequest)
    one.hear(request.to, Ack(number))
    assert changed(one.wake()) == []
    assert one.it.belief(target).state is State.ALIVE


@pytest.mark.parametrize("count", [2, 3, 5, 12])
def test_every_member_is_probed_once_in_2n_minus_1_periods(count: int) -> None:
    for seed in range(5):
        cluster = Cluster(seed, count)
        cluster.run(20 * count * PERIOD_S)
        others = count - 1
        for pair in itertools.permutations(cluster.names, 2):
            times = [at_s for at_s, *who in cluster.pinged if tuple(who) == pair]
            gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
            assert max(gaps) <= (2 * others - 1) * PERIOD_S + 0.1


def test_nobody_is_probed_twice_in_one_round() -> None:
    one = One(ANN, BEN, EVE, MAX)
    probed = []
    for _ in range(12):
        target, number = one.probe()
        one.hear(target, Ack(number))
        probed.append(target)
    for round_ in (probed[:4], probed[4:8], probed[8:]):
        assert set(round_) == {ANN, BEN, EVE, MAX}


def test_members_do_not_probe_in_step() -> None:
    begins = {Membership(ME, draw=random.Random(seed).randrange, now_s=0.0).due_s for seed in range(50)}
    assert len(begins) > 40
    assert all(0 <= begin_s <= PERIOD_S for begin_s in begins)


# Suspicion and refutation (SWIM §4.2, Lifeguard §IV-B).


def test_a_suspect_that_does_not_refute_is_believed_dead_when_its_time_is_up() -> None:
    cluster = Cluster(1, 3)
    cluster.run(5.0)
    victim = cluster.names[0]
    cluster.crash(victim)
    cluster.run_until(lambda: cluster.states() == {State.DEAD, State.ALIVE}, seconds=10, what="believed dead")
    states = [(who, change.state) for _, who, change in cluster.changes if change.node == victim]
    for observer in cluster.names[1:]:
        assert [state for who, state in states if who == observer] == [State.SUSPECT, State.DEAD]


def test_who_hears_that_it_is_suspected_refutes_with_the_next_incarnation_and_spreads_it() -> None:
    one = One(ANN, BEN)
    [answer] = sent(one.hear(ANN, Ping(7), Claim(ME, State.SUSPECT, 0, (ANN,))), Ack)
    assert answer.packet.incarnation == one.it.incarnation == 1
    assert Claim(ME, State.ALIVE, 1) in answer.packet.claims
    assert one.it.health.score == 1, "somebody found it silent"


def test_an_old_accusation_is_not_refuted_again() -> None:
    one = One(ANN)
    for _ in range(2):
        one.hear(ANN, Ping(7), Claim(ME, State.SUSPECT, 0, (ANN,)))
    assert one.it.incarnation == 1


def test_an_accusation_that_came_with_an_ack_is_answered_by_a_ping() -> None:
    one = One(ANN)
    [ping] = one.hear(ANN, Ack(99), Claim(ME, State.DEAD, 4))
    assert isinstance(ping, Send)
    assert isinstance(ping.packet.body, Ping)
    assert ping.packet.incarnation == 5


def test_a_refutation_is_believed_and_passed_on() -> None:
    one = One(ANN, BEN)
    one.suspect(ANN, BEN)
    assert changed(one.hear(ANN, Ping(1), incarnation=1)) == [(ANN, State.ALIVE)]
    assert Claim(ANN, State.ALIVE, 1) in sent(one.hear(BEN, Ping(2)), Ack)[0].packet.claims


def test_a_word_from_a_suspect_that_does_not_know_is_no_refutation_and_it_is_told() -> None:
    one = One(ANN, BEN)
    one.suspect(ANN, BEN)
    effects = one.hear(ANN, Ping(1))
    assert changed(effects) == []
    assert sent(effects, Ack)[0].packet.claims[0] == Claim(ANN, State.SUSPECT, 0, (BEN,))


def test_a_suspect_is_told_first_however_much_other_news_there_is() -> None:
    others = tuple(NodeId(f"{number:016x}") for number in range(100, 200))
    one = One(ANN, BEN, *others)
    one.hear(BEN, Ping(0), *(Claim(other, State.DEAD, 1) for other in others))
    one.suspect(ANN, BEN)
    for _ in range(5):
        [ack] = sent(one.hear(ANN, Ping(1)), Ack)
        assert ack.packet.claims[0].node == ANN


def test_more_accusers_bring_the_verdict_sooner() -> None:
    def verdict_after_s(*accusers: NodeId) -> float:
        one = One(ANN, BEN, EVE, MAX)
        one.suspect(ANN, *accusers)
        began_s = one.now_s
        while one.it.belief(ANN).state is not State.DEAD:
            for effect in one.wake():  # all the others answer
                if type(effect) is Send and type(effect.packet.body) is Ping and effect.to != ANN:
                    one.hear(effect.to, Ack(effect.packet.body.number))
            assert one.now_s < 60
            if one.it.belief(ANN).claim.accusers != tuple(sorted(accusers)) and ME not in accusers:
                break  # it has confirmed the suspicion itself
        return one.now_s - began_s

    assert verdict_after_s(BEN, EVE, MAX, ME) < 6


def test_a_member_restarted_learns_what_is_said_of_it_and_outranks_it() -> None:
    cluster = Cluster(3, 4)
    victim = cluster.names[0]
    cluster.run(3.0)
    cluster.crash(victim)
    cluster.run(30.0)
    cluster.start(victim)
    cluster.run_until(lambda: cluster.states() == {State.ALIVE}, seconds=10, what="believed alive again")
    assert cluster.members[victim].incarnation == 1


def test_what_an_earlier_life_claimed_is_where_the_next_goes_on() -> None:
    one = One(ANN)
    one.hear(ANN, Ping(1), Claim(ME, State.ALIVE, 6))
    assert one.it.incarnation == 6
    assert one.it.health.score == 0, "nobody accused it"


# Local health (Lifeguard §IV-A).


def test_a_member_to_whom_nobody_answers_probes_ever_more_slowly() -> None:
    one = One(ANN, BEN, EVE)
    begins: list[float] = []
    for _ in range(3):
        one.probe()
        begins.append(one.now_s)
        one.wake()
    assert one.it.health.score > 0
    assert begins[2] - begins[1] > begins[1] - begins[0]


def test_relays_that_answer_nack_keep_the_prober_healthy() -> None:
    one = One(ANN, BEN, EVE)
    target, number = one.probe()
    for request in sent(one.wake(), PingRequest):
        one.hear(request.to, Nack(number))
    assert changed(one.wake()) == [(target, State.SUSPECT)]
    assert one.it.health.score == 0


def test_a_probe_that_is_answered_restores_health() -> None:
    one = One(ANN)
    one.it.health.worsen()
    _, number = one.probe()
    one.hear(ANN, Ack(number))
    assert one.it.health.score == 0


def test_a_member_that_was_stopped_judges_nobody_by_the_time_it_slept() -> None:
    one = One(ANN, BEN)
    one.suspect(ANN, BEN)
    one.probe()
    assert changed(one.wake(late_s=3600.0)) == []
    assert one.it.health.score > 0
    assert one.it.belief(ANN).state is State.SUSPECT
    assert one.it.belief(BEN).state is State.ALIVE


# Proof (an answered request).


def test_an_answered_request_proves_a_suspect_alive_and_has_it_refute_for_everyone() -> None:
    one = One(ANN, BEN)
    one.suspect(ANN, BEN)
    effects = one.it.step(Answered(ANN), one.now_s)
    assert changed(effects) == [(ANN, State.ALIVE)]
    [told] = [effect for effect in effects if type(effect) is SendReliably]
    assert told.packet.claims[0] == Claim(ANN, State.SUSPECT, 0, (BEN,))
    assert one.it.step(Answered(ANN), one.now_s) == []


def test_gossip_older_than_the_proof_is_not_believed_but_a_newer_accusation_is() -> None:
    one = One(ANN, BEN)
    one.suspect(ANN, BEN)
    one.it.step(Answered(ANN), one.now_s)
    assert changed(one.hear(BEN, Ping(1), Claim(ANN, State.DEAD, 0))) == []
    assert changed(one.suspect(ANN, BEN, incarnation=1)) == [(ANN, State.SUSPECT)]


def test_with_datagrams_blocked_connections_keep_all_alive() -> None:
    cluster = Cluster(5, 4)
    cluster.weather.loss = 1.0
    cluster.run(120.0)
    assert cluster.changes == []


def test_with_datagrams_blocked_the_crash_of_one_is_still_found() -> None:
    cluster = Cluster(6, 4)
    cluster.weather.loss = 1.0
    cluster.run(5.0)
    cluster.crash(cluster.names[2])
    cluster.run_until(
        lambda: all(cluster.state(one, cluster.names[2]) is State.DEAD for one in cluster.members),
        seconds=120,
        what="believed dead",
    )
    assert {change.node for _, _, change in cluster.changes} == {cluster.names[2]}


# Members and strangers.


def test_packets_of_strangers_and_claims_about_them_are_ignored() -> None:
    one = One(ANN)
    assert one.hear(NodeId("stranger"), Ping(1)) == []
    one.hear(ANN, Ping(1), Claim(NodeId("stranger"), State.DEAD, 9))
    assert one.it.belief(NodeId("stranger")).state is State.ALIVE


def test_a_member_that_leaves_the_map_is_forgotten_and_not_accused() -> None:
    one = One(ANN, BEN)
    target, _ = one.probe()
    one.wake()
    one.it.step(MembersAre((ME, BEN if target == ANN else ANN)), one.now_s)
    assert changed(one.wake()) == []
    assert one.it.belief(target).state is State.ALIVE


def test_a_member_that_joins_is_probed_within_the_round() -> None:
    one = One(ANN)
    one.probe()
    one.it.step(MembersAre((ME, ANN, BEN, EVE)), one.now_s)
    probed = set()
    for _ in range(5):
        target, number = one.probe()
        one.hear(target, Ack(number))
        probed.add(target)
    assert probed == {ANN, BEN, EVE}


def test_alone_there_is_nobody_to_probe() -> None:
    one = One()
    for _ in range(5):
        assert one.wake() == []


# Bounds, whatever comes in.


def test_claims_with_too_many_and_unknown_accusers_are_cut_down_to_what_members_would_say() -> None:
    one = One(ANN, BEN, EVE, MAX)
    flood = tuple(NodeId("x" * 50 + str(number)) for number in range(15))
    one.hear(BEN, Ping(1), Claim(ANN, State.SUSPECT, 0, (*flood, MAX, EVE, BEN, ANN, ME, MAX)))
    assert one.it.belief(ANN).claim.accusers == tuple(sorted((ME, ANN, BEN, EVE, MAX)))[:ACCUSERS_MAX]
    [ack] = sent(one.hear(BEN, Ping(1), Claim(EVE, State.DEAD, 0, flood)), Ack)
    assert one.it.belief(EVE).claim.accusers == ()
    assert {claim.node for claim in ack.packet.claims} == {ANN, EVE}, "such claims keep no others from going along"


def test_a_suspicion_that_names_no_accuser_known_here_waits_longest() -> None:
    one = One(ANN, BEN)
    one.hear(BEN, Ping(1), Claim(ANN, State.SUSPECT, 0))
    while one.it.belief(ANN).state is State.SUSPECT:
        one.wake()
        assert one.now_s < 60
    assert one.now_s > 4.0


def test_an_accusation_in_the_last_incarnation_cannot_be_refuted_and_is_ignored() -> None:
    one = One(ANN, BEN)
    one.hear(ANN, Ping(1), Claim(ME, State.DEAD, INCARNATION_MAX), Claim(BEN, State.SUSPECT, INCARNATION_MAX, (ANN,)))
    assert one.it.incarnation == 0
    assert one.it.belief(BEN).state is State.ALIVE
    one.hear(ANN, Ping(1), Claim(ME, State.DEAD, INCARNATION_MAX - 1))
    assert one.it.incarnation == INCARNATION_MAX


states = st.sampled_from(State)
incarnations = st.one_of(st.integers(0, 3), st.integers(INCARNATION_MAX - 2, INCARNATION_MAX))
bodies = st.one_of(
    st.builds(Ping, st.integers(-(2**63), 2**64 - 1)),
    st.builds(Ack, st.integers(0, 9)),
    st.builds(Nack, st.integers(0, 9)),
    st.builds(PingRequest, st.integers(0, 2**64 - 1), st.sampled_from(ALL)),
)
claims = st.builds(
    Claim, st.sampled_from(ALL), states, incarnations, st.lists(st.sampled_from(ALL), max_size=8).map(tuple)
)
heard = st.builds(
    Heard, st.builds(Packet, st.sampled_from(ALL), incarnations, bodies, st.lists(claims, max_size=12).map(tuple))
)
events = st.one_of(heard, st.just(Woken()), st.builds(Answered, st.sampled_from(ALL)))


@given(st.lists(st.tuples(events, st.floats(0, 2)), max_size=40))
def test_whatever_is_heard_packets_are_small_and_can_be_read(
    happened: list[tuple[Heard | Woken | Answered, float]],
) -> None:
    one = One(ANN, BEN, EVE, MAX)
    for event, passes_s in happened:
        one.now_s += passes_s
        for effect in one.it.step(event, one.now_s):
            if isinstance(effect, Send | SendReliably):
                assert effect.to != ME
                assert len(encode(CLUSTER, effect.packet)) <= PACKET_BYTES_MAX
                assert effect.packet.incarnation <= INCARNATION_MAX


def test_a_large_cluster_full_of_news_still_sends_small_packets() -> None:
    cluster = Cluster(1, 120)
    cluster.run(3.0)
    for name in cluster.names[:40]:
        cluster.crash(name)
    cluster.run(30.0)  # `Cluster` checks every packet
    assert State.DEAD in cluster.states()
