"""How well failures are detected: many `core.membership` on virtual time, without the rest of a node.

A discrete-event simulation: a heap of packets under way and of members to be woken. Datagrams are lost at
random; what goes over a connection is sent again by TCP until it arrives. First nobody fails, and what is
wrongly believed is counted; then members crash one after another, and it is counted how long the others take.

``python -m merganser.sim.detection`` prints the table of docs/internals/membership.md.
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import time
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from merganser.core.membership import (
    Changed,
    Effect,
    Event,
    Heard,
    MembersAre,
    Membership,
    Send,
    SendReliably,
    Woken,
)
from merganser.model.gossip import Packet, State
from merganser.model.ids import ClusterId, NodeId
from merganser.net.packets import encode

DELAY_S = (0.0002, 0.01)
"""One way; as in the simulated network of whole clusters."""

RETRANSMIT_S = 0.2
"""Least time after which Linux sends a lost TCP segment again, doubled with each loss."""

HEADERS_BYTES = 28
"""Of IPv4 and UDP, before each packet."""

BETWEEN_CRASHES_S = 2.0
PATIENCE_S = 600.0

_CLUSTER = ClusterId("0" * 16)


class Plan(msgspec.Struct, frozen=True):
    """One cell of the table."""

    members: int
    loss: float
    quiet_s: float
    """Virtual time during which nobody crashes."""
    crashes: int
    """Of one run; at most a third of the members."""
    runs: int
    has_connections: bool = True
    """Without, the TCP fallback never gets through."""


class Findings(msgspec.Struct):
    """What the runs of a plan came to."""

    first_s: list[float] = []
    """From each crash until somebody believes it."""
    all_s: list[float] = []
    """From each crash until everybody alive does."""
    undetected: int = 0
    suspected: int = 0
    """SUSPECT, of a member that was alive, counted at each member that believed it."""
    buried: int = 0
    """DEAD, of a member that was alive, likewise."""
    sent_bytes: int = 0
    """While nobody crashed, with headers of IPv4 and UDP."""
    quiet_node_s: float = 0.0
    node_s: float = 0.0
    """Members times virtual seconds, crashes included."""


class _Due(msgspec.Struct, frozen=True, gc=False):
    """What a member is to take in, and until when its answer is waited for if it came over a connection."""

    to: NodeId
    event: Event
    answer_by_s: float | None = None


class Detection:
    """One run; see the module's docstring."""

    def __init__(self, plan: Plan, seed: int, findings: Findings) -> None:
        """Prepare the members of ``plan``; what happens goes into ``findings``."""
        self._plan = plan
        self._findings = findings
        self._rng = random.Random(seed)
        self._now_s = 0.0
        self._pushed = 0
        self._due: list[tuple[float, int, _Due]] = []
        names = tuple(NodeId(f"{self._rng.getrandbits(64):016x}") for _ in range(plan.members))
        self._members = {name: Membership(name, draw=self._rng.randrange, now_s=0.0) for name in names}
        self._woken_at_s: dict[NodeId, float] = {}
        self._crashed_at_s: dict[NodeId, float] = {}
        self._unaware: dict[NodeId, set[NodeId]] = {}
        """Of each that crashed, who does not believe it yet."""
        self._first: set[NodeId] = set()
        for name, member in self._members.items():
            member.step(MembersAre(names), 0.0)
            self._wake_when_due(name, member)

    def run(self) -> None:
        """Run the quiet time, then the crashes, until all are known."""
        plan, findings = self._plan, self._findings
        self._run_until(plan.quiet_s)
        findings.quiet_node_s += plan.members * plan.quiet_s
        for victim in self._rng.sample(list(self._members), plan.crashes):
            self._run_until(self._now_s + self._rng.uniform(0, 2 * BETWEEN_CRASHES_S))
            self._crash(victim)
        give_up_s = self._now_s + PATIENCE_S
        while any(self._unaware.values()) and self._now_s < give_up_s:
            self._run_until(self._now_s + 1.0)
        findings.undetected += sum(map(bool, self._unaware.values()))
        findings.node_s += plan.members * self._now_s

    def _crash(self, victim: NodeId) -> None:
        del self._members[victim]
        self._crashed_at_s[victim] = self._now_s
        for earlier, unaware in self._unaware.items():
            if victim in unaware:
                self._count_aware(earlier, victim)
        self._unaware[victim] = set(self._members)

    def _run_until(self, end_s: float) -> None:
        while self._due[0][0] <= end_s:
            self._now_s, _, due = heapq.heappop(self._due)
            member = self._members.get(due.to)
            if member is None:
                continue
            if type(due.event) is Woken and self._woken_at_s[due.to] != self._now_s:
                continue  # it has been put off, or brought forward
            self._perform(due, member.step(due.event, self._now_s))
            self._wake_when_due(due.to, member)
        self._now_s = end_s

    def _wake_when_due(self, name: NodeId, member: Membership) -> None:
        due_s = member.due_s
        if self._woken_at_s.get(name) != due_s:
            self._woken_at_s[name] = due_s
            self._push(due_s, _Due(name, Woken()))

    def _perform(self, cause: _Due, effects: Iterable[Effect]) -> None:
        answer_by_s = cause.answer_by_s
        for effect in effects:
            if type(effect) is Changed:
                self._note(cause.to, effect)
            elif type(effect) is SendReliably:
                self._send_reliably(effect.to, effect.packet, self._now_s + effect.timeout_s, is_request=True)
            elif type(effect) is Send:
                asker = cause.event.packet.sender if type(cause.event) is Heard else None
                if answer_by_s is not None and effect.to == asker:
                    self._send_reliably(effect.to, effect.packet, answer_by_s, is_request=False)
                    answer_by_s = None
                else:
                    self._send(effect.to, effect.packet)

    def _send(self, to: NodeId, packet: Packet) -> None:
        self._weigh(packet)
        if self._rng.random() >= self._plan.loss:
            self._push(self._now_s + self._rng.uniform(*DELAY_S), _Due(to, Heard(packet)))

    def _send_reliably(self, to: NodeId, packet: Packet, answer_by_s: float, *, is_request: bool) -> None:
        """TCP sends again what was lost, each time after twice as long."""
        if not self._plan.has_connections:
            return
        self._weigh(packet)
        arrives_s, again_s = self._now_s + self._rng.uniform(*DELAY_S), RETRANSMIT_S
        while self._rng.random() < self._plan.loss:
            arrives_s += again_s
            again_s *= 2
        if arrives_s < answer_by_s:
            self._push(arrives_s, _Due(to, Heard(packet), answer_by_s if is_request else None))

    def _weigh(self, packet: Packet) -> None:
        if not self._crashed_at_s:
            self._findings.sent_bytes += len(encode(_CLUSTER, packet)) + HEADERS_BYTES

    def _push(self, at_s: float, due: _Due) -> None:
        self._pushed += 1
        heapq.heappush(self._due, (at_s, self._pushed, due))

    def _note(self, observer: NodeId, changed: Changed) -> None:
        crashed_at_s = self._crashed_at_s.get(changed.node)
        if crashed_at_s is None:
            self._findings.suspected += changed.state is State.SUSPECT
            self._findings.buried += changed.state is State.DEAD
        elif changed.state is State.DEAD and observer in self._unaware[changed.node]:
            if changed.node not in self._first:
                self._first.add(changed.node)
                self._findings.first_s.append(self._now_s - crashed_at_s)
            self._count_aware(changed.node, observer)

    def _count_aware(self, victim: NodeId, observer: NodeId) -> None:
        unaware = self._unaware[victim]
        unaware.discard(observer)
        if not unaware:
            self._findings.all_s.append(self._now_s - self._crashed_at_s[victim])


def measure(plan: Plan, *, seed: int = 1) -> Findings:
    """Run ``plan`` and return what it came to."""
    findings = Findings()
    for run in range(plan.runs):
        Detection(plan, seed * 1_000 + run, findings).run()
    return findings


def plans(sizes: Sequence[int], losses: Sequence[float], *, has_connections: bool) -> Iterator[Plan]:
    """Yield the cells of the table, about as much work in each."""
    for members in sizes:
        for loss in losses:
            crashes = max(1, min(10, members // 3))
            runs = max(1, min(100, 1000 // members))
            yield Plan(members, loss, 120.0, crashes, runs, has_connections)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of ``values`` that at least ``share`` of them do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else math.nan


HEADINGS = (
    *("nodes", "loss", "first p50", "p99", "all p50", "p99", "crashes"),
    *("false DEAD", "false SUSPECT", "observed", "bytes/node/s"),
)


def row(plan: Plan, findings: Findings) -> tuple[str, ...]:
    """Return one line of the table; see `HEADINGS`."""
    return (
        f"{plan.members:,}",
        f"{plan.loss:.0%}",
        *(f"{quantile(times, share):.1f} s" for times in (findings.first_s, findings.all_s) for share in (0.5, 0.99)),
        f"{len(findings.all_s)} of {len(findings.all_s) + findings.undetected}",
        f"{findings.buried:,}",
        f"{findings.suspected:,}",
        f"{findings.node_s / 3600:,.1f} h",
        f"{findings.sent_bytes / findings.quiet_node_s:,.0f}",
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m merganser.sim.detection", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[3, 10, 100, 1000], help="sizes of cluster")
    parser.add_argument(
        "--loss", type=float, nargs="+", default=[0, 0.05, 0.1, 0.2, 0.3], help="shares of packets lost"
    )
    parser.add_argument("--datagrams-only", action="store_true", help="the TCP fallback never gets through")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    console = Console(width=120)
    began = time.perf_counter()
    table = Table(*HEADINGS, box=None)
    for plan in plans(given.nodes, given.loss, has_connections=not given.datagrams_only):
        table.add_row(*row(plan, measure(plan, seed=given.seed)))
    console.print(table)
    console.print(f"{time.perf_counter() - began:.0f} s", highlight=False)


if __name__ == "__main__":
    main()
