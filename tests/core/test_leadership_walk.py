"""Elections under random walks: nodes crash and are paused, links are cut, messages are lost, repeated and slow.

A walk is replayed by its seed.
"""

from __future__ import annotations

from itertools import product

import pytest

from core.elections_by_hand import Cluster, Epochs, Node
from merganser.core.leadership import PULSE_S, Tally
from merganser.model.leadership import NO_EPOCH, Group

SEEDS = 40
FAULTS = 40
HEALED_S = 8.0


def walk(cluster: Cluster) -> Cluster:
    """Let faults happen to ``cluster`` for some seconds each, and check what must always be so."""
    draw = cluster.random
    cluster.loss, cluster.slow = draw.choice([0.0, 0.1, 0.3]), draw.choice([0.0, 0.05])
    cluster.sync_s = draw.choice([0.02, 0.5])
    promised: dict[tuple[int, Group], tuple[int, int]] = {}
    for _ in range(FAULTS):
        node = draw.choice(cluster.nodes)
        strike(cluster, node)
        cluster.run(draw.uniform(0.0, draw.choice([0.1, 1.5])))
        for node in cluster.nodes:
            for group, epoch in node.disk.items():
                assert epoch >= promised.get((node.number, group), NO_EPOCH), "a promise fell"
                promised[node.number, group] = epoch
            for group, epoch in node.elections.leading.items() if node.is_up else ():
                assert node.promised(group) == epoch, "it leads in an epoch that it has not promised"
    return cluster


def strike(cluster: Cluster, node: Node) -> None:
    draw = cluster.random
    fault = draw.random()
    if not node.is_up:
        cluster.start(node)
    elif node.is_paused:
        cluster.resume(node)
    elif fault < 0.3:
        cluster.crash(node)
    elif fault < 0.5:
        node.is_paused = True
    elif fault < 0.8:
        cluster.cuts.add((node.number, draw.choice(cluster.nodes).number))
    else:
        cluster.cuts.clear()


@pytest.mark.parametrize(("nodes", "n"), [(3, 3), (5, 3), (5, 5), (2, 2), (3, 1)])
def test_no_epoch_has_two_leaders_no_promise_falls_and_no_stale_leader_is_confirmed(nodes: int, n: int) -> None:
    elected = confirmed = 0
    for seed in range(SEEDS // 2):
        cluster = walk(Cluster(seed, nodes=nodes, n=n))
        elected, confirmed = elected + len(cluster.elected), confirmed + cluster.confirmed
    assert elected > 100
    assert confirmed > 100 or n == 1


def test_when_faults_end_every_group_is_led_by_its_owner_and_stays_so() -> None:
    for seed in range(SEEDS // 2):
        cluster = walk(Cluster(seed))
        cluster.heal()
        cluster.run(HEALED_S)
        assert cluster.is_led_by_owners(), seed
        campaigns = len(cluster.campaigns)
        known = {group: node.elections.known(group) for node in cluster.nodes for group in node.elections.leading}
        for node in cluster.nodes:
            assert {group: node.elections.known(group) for group in known} == known
        cluster.run(5.0)
        assert len(cluster.campaigns) == campaigns, seed
        assert cluster.is_led_by_owners()


def test_whichever_links_are_cut_candidates_do_not_duel_for_ever() -> None:
    links = [(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b]
    for cut in product((False, True), repeat=len(links)):
        cluster = Cluster(1)
        cluster.run(5.0)
        cluster.cuts = {link for link, is_cut in zip(links, cut, strict=True) if is_cut}
        cluster.run(10.0)
        campaigns = len(cluster.campaigns)
        cluster.run(5.0)
        assert len(cluster.campaigns) == campaigns, cluster.cuts


def test_while_a_majority_is_connected_every_group_has_a_leader_among_it() -> None:
    for lonely in (1, 2, 3):
        cluster = Cluster(lonely)
        cluster.run(5.0)
        cluster.cuts = {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if lonely in (a, b)}
        cluster.run(8 * PULSE_S)
        assert all(cluster.leaders(group) not in ([], [lonely]) for group in cluster.groups)
        cluster.run(8 * PULSE_S)
        assert all(len(cluster.leaders(group)) == 1 for group in cluster.groups)


def test_of_five_the_first_that_hears_but_one_other_keeps_nobody_from_leading() -> None:
    cluster = Cluster(1, nodes=5, n=5)
    group, (first, second, *others) = next(iter(cluster.groups.items()))
    cluster.run(5.0)
    assert cluster.leaders(group) == [first]
    cluster.cuts = {link for other in others for link in ((first, other), (other, first))}
    cluster.run(12 * PULSE_S)
    assert cluster.leaders(group) == [second]


def test_with_a_fifth_of_all_messages_lost_leaders_seldom_change() -> None:
    elections = 0
    for seed in range(10):
        cluster = Cluster(seed)
        cluster.run(5.0)
        cluster.loss = 0.2
        before = len(cluster.elected)
        cluster.run(60.0)
        elections += len(cluster.elected) - before
    assert elections < 60  # of 10 minutes and 6 groups


class ForgetsItsBid(Cluster):
    def syncs_own_promise(self) -> bool:
        return False


class AnswersBeforeTheSync(Cluster):
    def syncs_before_reply(self) -> bool:
        return False


class PromisesEarlierEpochs(Cluster):
    def refuses_earlier(self) -> bool:
        return False


class CountsHalf(Cluster):
    def tally(self, bids: Epochs) -> Tally:
        tally = super().tally(bids)
        tally._missing = dict.fromkeys(bids, 1)
        return tally


@pytest.mark.parametrize("planted", [ForgetsItsBid, AnswersBeforeTheSync, PromisesEarlierEpochs, CountsHalf])
def test_planted_bugs_are_found(planted: type[Cluster]) -> None:
    def is_found(seed: int) -> bool:
        try:
            walk(planted(seed))
        except AssertionError:
            return True
        return False

    assert any(is_found(seed) for seed in range(2 * SEEDS))
