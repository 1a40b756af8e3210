"""Membership at random: loss, repeats, overtaking, cuts, pauses and restarts, then calm; and planted bugs.

`Cluster` checks each step (beliefs only grow, only a member raises its incarnation, every change is told, packets
are small). After the calm all must believe all alive, and a member that stays down dead.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from core.membership_by_hand import DELAY_S, Cluster, Weather
from merganser.core import membership, suspicion
from merganser.core.membership import Membership
from merganser.model.gossip import Claim, Packet, State

CALM_S = 120.0
"""A member whose local health is at its worst probes every nine seconds."""


def walk(seed: int) -> None:
    """Hurt a cluster for two minutes, heal it, and see what is believed; fails if it should not be."""
    cluster = Cluster(seed, 2 + seed % 4)
    rng = cluster.rng
    for _ in range(rng.randrange(4, 20)):
        _hurt(cluster)
        cluster.run(rng.uniform(0.0, 12.0))
    _heal(cluster)
    cluster.run_until(lambda: cluster.states() == {State.ALIVE}, seconds=CALM_S, what="all believed alive")
    cluster.run(30.0)
    assert cluster.states() == {State.ALIVE}, "and it stays so"
    victim = rng.choice(cluster.names)
    cluster.crash(victim)
    cluster.run_until(
        lambda: all(cluster.state(observer, victim) is State.DEAD for observer in cluster.members),
        seconds=CALM_S,
        what="the one that crashed believed dead by all",
    )
    assert all(
        cluster.state(one, other) is State.ALIVE for one in cluster.members for other in cluster.members if one != other
    )


def _hurt(cluster: Cluster) -> None:
    rng, name = cluster.rng, cluster.rng.choice(cluster.names)
    match rng.randrange(6):
        case 0:
            cluster.weather = Weather(rng.choice((0.1, 0.5, 1.0)), rng.choice((0.0, 0.5)), DELAY_S, rng.random() < 0.5)
        case 1 if name in cluster.members:
            cluster.crash(name)
        case 1 | 2:
            cluster.start(name)
        case 3 if name in cluster.members:
            cluster.pause(name)
        case 4:
            cluster.resume(name)
        case _:
            cluster.cuts.clear()
            if rng.random() < 0.7:
                cluster.cut_off(name)
            else:
                cluster.cuts.add((name, rng.choice(cluster.names)))


def _heal(cluster: Cluster) -> None:
    cluster.weather = Weather()
    cluster.cuts.clear()
    for name in cluster.names:
        cluster.resume(name)
        if name not in cluster.members:
            cluster.start(name)


def test_after_any_trouble_all_believe_the_truth() -> None:
    for seed in range(200):
        walk(seed)


def test_in_calm_nobody_is_suspected() -> None:
    for seed in range(20):
        cluster = Cluster(seed, 6)
        cluster.run(60.0)
        assert cluster.changes == []


def test_a_slow_member_is_not_declared_dead() -> None:
    for seed in range(10):
        cluster = Cluster(seed, 5)
        slow = cluster.names[0]
        for _ in range(600):  # it stands still for 0.4 s of each 0.5 s
            cluster.pause(slow)
            cluster.run(0.4)
            cluster.resume(slow)
            cluster.run(0.1)
        assert not [change for _, _, change in cluster.changes if change.state is State.DEAD]


def test_a_paused_member_is_suspected_and_refutes_when_it_wakes() -> None:
    for seed in range(10):
        cluster = Cluster(seed, 3)
        cluster.run(5.0)
        paused = cluster.names[0]
        cluster.pause(paused)
        others = [name for name in cluster.names if name != paused]
        cluster.run_until(
            lambda others=others, cluster=cluster, paused=paused: all(  # type: ignore[misc]
                cluster.state(other, paused) is not State.ALIVE for other in others
            ),
            seconds=15,
            what="suspected",
        )
        cluster.resume(paused)
        cluster.run_until(lambda cluster=cluster: cluster.states() == {State.ALIVE}, seconds=10, what="alive again")  # type: ignore[misc]
        assert cluster.members[paused].incarnation >= 1
        assert not [who for _, who, _ in cluster.changes if who == paused], "it accused nobody of its own sleep"


# Planted bugs: the walk finds each.


def refutation_in_the_same_incarnation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "_answer_claim", lambda _self, _claim: None)


def suspicion_that_never_expires(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Membership, "_judge_suspicions", lambda _self, _now_s: None)


def last_claim_heard_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(suspicion, "merge", lambda _one, other: other)


def accusation_that_raises_the_incarnation(patch: pytest.MonkeyPatch) -> None:
    real = suspicion.accuse

    def accuse(claim: Claim, accuser: str) -> Claim:
        accused = real(claim, accuser)  # type: ignore[arg-type]
        return msgspec.structs.replace(accused, incarnation=claim.incarnation + 1)

    patch.setattr(suspicion, "accuse", accuse)


def dead_members_never_pinged_nor_told(patch: pytest.MonkeyPatch) -> None:
    real = Membership._ping

    def ping(self: Membership, node: str) -> int:
        return 0 if self.belief(node).state is State.DEAD else real(self, node)  # type: ignore[arg-type]

    def packet(self: Membership, _to: object, body: object) -> object:
        return Packet(self.me, self.incarnation, body)  # type: ignore[arg-type]

    patch.setattr(Membership, "_ping", ping)
    patch.setattr(Membership, "_packet", packet)


def change_that_nobody_is_told_of(patch: pytest.MonkeyPatch) -> None:
    real = Membership._adopt

    def adopt(self: Membership, claim: Claim, now_s: float) -> None:
        real(self, claim, now_s)
        if claim.state is State.DEAD:
            self._effects = [effect for effect in self._effects if type(effect) is not membership.Changed]

    patch.setattr(Membership, "_adopt", adopt)


PLANTED: list[Callable[[pytest.MonkeyPatch], None]] = [
    refutation_in_the_same_incarnation,
    suspicion_that_never_expires,
    last_claim_heard_is_believed,
    accusation_that_raises_the_incarnation,
    dead_members_never_pinged_nor_told,
    change_that_nobody_is_told_of,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_the_walk_finds_a_planted_bug(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        _hunt()


def _hunt() -> None:
    for seed in range(40):
        walk(seed)
