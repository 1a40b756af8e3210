"""Horizons under random walks: three replicas and a keeper of hints, writes, deletes, expiry, rounds, old disks.

The network loses, repeats and delays without bound; clocks of coordinators lag behind the seal; processes restart in
the middle of everything; one disk at a time is put back to what it held long ago, or loses rows. A walk is replayed by
its seed. Reads are judged when they end: of what was acknowledged before they began, nothing older may be seen, and
nothing that was deleted. Planted bugs replace the methods of the first group.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

from core.horizon_nodes import CELL, KEYS, LAG_S, MARGIN_S, SECOND, Attempt, Node, Op, Process
from merganser.core import rows
from merganser.core.horizon import Round, Standing, admissible, agreed, lacks, met, right_after
from merganser.model.ids import NodeId
from merganser.model.row import CellWrite, Mutation, Row
from merganser.model.timestamp import BEGINNING, Timestamp

STEPS = 800


class Walk:
    """One partition of one table, walked at random."""

    def __init__(self, seed: int, *, old_disks: bool) -> None:
        self.random = random.Random(seed)
        self.now_s = 1_000
        self.replicas = [Node(NodeId(f"r{i}"), self.random.getrandbits(30)) for i in range(3)]
        self.keeper = Node(NodeId("f"), self.random.getrandbits(30))
        self.nodes = [*self.replicas, self.keeper]
        self.latest = dict.fromkeys((1, 2, 3), 0)
        self.network: list[Callable[[], None]] = []
        self.late: list[Callable[[], None]] = []
        self.processes: list[tuple[Node, Process]] = []
        self.attempts: dict[bytes, list[Attempt]] = {key: [] for key in KEYS}
        self.acked: dict[bytes, list[Attempt]] = {key: [] for key in KEYS}
        self.open: list[Attempt] = []
        self.loss = self.random.choice([0.0, 0.1, 0.3, 0.5])
        self.habits = self.weighted()
        self.old_disks = old_disks
        self.images: list[Node] = []
        self.indebted: Node | None = None
        self.debts = 0
        self.completed_us = 0
        self.rounds = 0
        self.purges = 0
        self.rounds_before_healing = self.purges_before_healing = 0
        self.violation: str | None = None

    # What a planted bug replaces

    def takes_client_write(self, node: Node, row: Row) -> bool:
        return rows.newest(row).micros > node.standing.sealed_us

    def has_hints(self, node: Node, until_us: int) -> bool:
        return any(_oldest(row).micros <= until_us for row in node.hints.values())

    def taken(self, node: Node, row: Row, vouched_us: int) -> Row | None:
        return admissible(row, horizon_us=node.floor_us, vouched_us=vouched_us)

    def purges_up_to(self, node: Node) -> int:
        return node.standing.horizon_us

    def answer(self, held: list[tuple[Row | None, int]]) -> Row | None:
        return agreed(held)

    def after_meeting(self, node: Node, held: Row | None, other: Row | None, other_us: int) -> Row | None:
        return met(held, other, horizon_us=node.standing.horizon_us, floor_us=node.floor_us, other_us=other_us)

    def lagging(self, round_: Round) -> tuple[NodeId, ...]:
        return round_.lagging

    def adoption_synchronises(self) -> bool:
        return True

    def adoption_is_closed(self) -> bool:
        return True

    def vow_counts(self) -> bool:
        return True

    def passes(self) -> int:
        return 2

    def required_in_round(self, leader: Node) -> list[Node]:
        return self.replicas

    def after_loss(self, standing: Standing) -> Standing:
        return standing.doubted()

    # The walk

    def run(self) -> Walk:
        for _ in range(STEPS):
            self.step()
            if self.violation is not None:
                return self
        self.rounds_before_healing, self.purges_before_healing = self.rounds, self.purges
        self.heal()
        return self

    def weighted(self) -> tuple[list[Callable[[], None]], list[float]]:
        """What may happen and how often: each walk has habits of its own (Groce 2012, "Swarm Testing")."""
        usual: list[tuple[Callable[[], None], float]] = [
            (lambda: self.deliver(self.late), 3.0),
            (self.advance_some, 40.0),
            (self.write, 2.5),
            (lambda: self.spawn(self.random.choice(self.replicas), self.read()), 8.0),
            (self.exchange_some, 3.0),
            (self.hint, 3.0),
            (self.deliver_hint, 2.0),
            (self.purge_some, 6.0),
            (self.begin_round, 2.5),
            (self.fail, 2.0),
        ]
        return [act for act, _ in usual], [weight * self.random.choice([0.15, 1.0, 1.0, 3.0]) for _, weight in usual]

    def step(self) -> None:
        self.now_s += self.random.random() < 0.3
        for _ in range(self.random.randint(0, 5)):
            self.deliver(self.network)
        self.random.choices(*self.habits)[0]()

    def advance_some(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            if self.processes:
                self.advance(self.random.choice(self.processes))

    def exchange_some(self) -> None:
        one, other = self.random.sample(self.replicas, 2)
        self.exchange(one, other, self.random.choice(KEYS))

    def purge_some(self) -> None:
        node = self.random.choice(self.replicas)
        for key in KEYS:
            self.purge(node, key)

    def begin_round(self) -> None:
        leader = self.random.choice(self.replicas)
        self.spawn(leader, self.round(leader))

    def deliver(self, messages: list[Callable[[], None]]) -> None:
        if messages:
            messages.pop(self.random.randrange(len(messages)))()

    def spawn(self, node: Node, process: Process) -> None:
        self.processes.append((node, process))

    def advance(self, running: tuple[Node, Process]) -> None:
        try:
            next(running[1])
        except StopIteration:
            if running in self.processes:
                self.processes.remove(running)

    def send(self, delivery: Callable[[], None]) -> None:
        """Lose it, or let it arrive: soon, late, much later a second time."""
        if self.random.random() >= self.loss:
            (self.late if self.random.random() < 0.03 else self.network).append(delivery)
        if self.random.random() < 0.05:
            self.late.append(delivery)

    # Failures

    def fail(self) -> None:
        node = self.random.choice(self.nodes)
        dice = self.random.random()
        if not self.old_disks or dice < 0.2:
            self.restart(node)
        elif dice < 0.5:
            self.images.append(copy.deepcopy(node))
        elif self.indebted is None and dice < 0.8:
            self.put_old_disk_back()
        elif self.indebted is None and node is not self.keeper and node.standing.horizon_us > 0:
            node.rows.pop(self.random.choice(KEYS), None)
            node.standing = self.after_loss(node.standing)
            node.vow += 1
            node.adopting_us = 0
            self.owes(node)

    def put_old_disk_back(self) -> None:
        if self.images:
            image = self.random.choice(self.images)
            node = next(node for node in self.nodes if node.name == image.name)
            node.rows, node.hints, node.standing = dict(image.rows), dict(image.hints), image.standing
            self.restart(node)
            self.owes(node)

    def owes(self, node: Node) -> None:
        self.indebted = node
        self.debts += 1

    def restart(self, node: Node) -> None:
        node.vow = self.random.getrandbits(30)
        node.adopting_us = 0
        self.processes = [(owner, process) for owner, process in self.processes if owner is not node]

    # Clients

    def write(self) -> None:
        key, dice = self.random.choice(KEYS), self.random.random()
        if dice < 0.4:
            mutation = Mutation((CellWrite(CELL, b"%d" % self.random.getrandbits(16)),))
        elif dice < 0.6:
            expiry = self.now_s + self.random.randint(-5, 60)
            mutation = Mutation((CellWrite(CELL, b"x%d" % self.random.getrandbits(16)),), expires_at_s=expiry)
        elif dice < 0.8:
            mutation = Mutation((CellWrite(CELL, None),))
        else:
            mutation = Mutation(deletes_row=True)
        level = "QUORUM" if self.old_disks else self.random.choice(["ONE", "QUORUM", "QUORUM", "ANY"])
        self.attempt(Op(key, mutation, level, self.random.choice((1, 2, 3))))

    def attempt(self, op: Op) -> None:
        wall_us = (self.now_s - (0 if self.random.random() < 0.6 else self.random.randint(0, LAG_S))) * SECOND
        micros = self.latest[op.writer] = max(wall_us, self.latest[op.writer] + 1)
        attempt = Attempt(op, Timestamp(micros, op.writer))
        self.attempts[op.key].append(attempt)
        self.open.append(attempt)
        for node in self.replicas:
            self.send(lambda node=node: self.serve_client(node, attempt))  # type: ignore[misc]
        if op.level == "ANY":
            self.send(lambda: self.serve_hint(self.random.choice(self.replicas).name, attempt))

    def serve_client(self, node: Node, attempt: Attempt) -> None:
        if not self.takes_client_write(node, attempt.row):
            outranked_by: Timestamp | None = right_after(node.standing.sealed_us)
        else:
            held = node.rows.get(attempt.op.key)
            outranked_by = None
            if held is not None and rows.newest(held) >= rows.newest(attempt.row):
                outranked_by = rows.newest(held)
            node.set(attempt.op.key, attempt.row if held is None else rows.merge(held, attempt.row))
        self.send(lambda: self.client_heard(node, attempt, outranked_by))

    def client_heard(self, node: Node, attempt: Attempt, outranked_by: Timestamp | None) -> None:
        op = attempt.op
        if op.is_over or attempt not in self.open:
            return
        if outranked_by is not None:
            self.open.remove(attempt)
            self.latest[op.writer] = max(self.latest[op.writer], outranked_by.micros)
            self.attempt(op)
            return
        attempt.acked.add(node.name)
        if len(attempt.acked - {self.keeper.name} if op.level != "ANY" else attempt.acked) >= _REQUIRED[op.level]:
            op.is_over = True
            self.open.remove(attempt)
            self.acked[op.key].append(attempt)

    def hint(self) -> None:
        """Someone keeps a hint for a replica that is silent."""
        attempts = [attempt for of_key in self.attempts.values() for attempt in of_key[-3:]]
        if not attempts:
            return
        attempt = self.random.choice(attempts)
        silent = [node for node in self.replicas if node.name not in attempt.acked]
        if silent:
            target = self.random.choice(silent).name
            self.send(lambda: self.serve_hint(target, attempt))

    def serve_hint(self, target: NodeId, attempt: Attempt) -> None:
        node = self.keeper
        outranked_by = None
        if self.takes_client_write(node, attempt.row):
            held = node.hints.get((target, attempt.op.key))
            node.hints[target, attempt.op.key] = attempt.row if held is None else rows.merge(held, attempt.row)
        else:
            outranked_by = right_after(node.standing.sealed_us)
        self.send(lambda: self.client_heard(node, attempt, outranked_by))

    def deliver_hint(self) -> None:
        if not self.keeper.hints:
            return
        target, key = self.random.choice(sorted(self.keeper.hints))
        row = self.keeper.hints[target, key]
        node = next(node for node in self.replicas if node.name == target)

        def acked() -> None:
            if self.keeper.hints.get((target, key)) == row:
                del self.keeper.hints[target, key]

        self.send(lambda: self.serve_repair(node, key, row, 0, acked))

    def serve_repair(self, node: Node, key: bytes, row: Row, vouched_us: int, acked: Callable[[], None]) -> None:
        taken = self.taken(node, row, vouched_us)
        if taken is not None:
            held = node.rows.get(key)
            node.set(key, taken if held is None else rows.merge(held, taken))
        self.send(acked)

    def read(self) -> Process:
        key = self.random.choice(KEYS)
        completed = [attempt for attempt in self.acked[key] if self.is_completed(attempt)]
        acked = [attempt for attempt in self.acked[key] if attempt.op.level == "QUORUM"]
        debts, is_well = self.debts, self.indebted is None
        answers: list[tuple[Node, Row | None, int]] = []
        for node in self.random.sample(self.replicas, self.random.choice([2, 2, 3])):
            if node.standing.is_whole:
                answers.append((node, node.rows.get(key), node.standing.horizon_us))
            yield
        if len(answers) < 2:
            return
        found = self.answer([(row, horizon_us) for _, row, horizon_us in answers])
        # With a disk that forgot, two replicas need not know more than what a round has completed.
        self.judge("a read", key, found, completed + acked if is_well and debts == self.debts else completed)
        vouched_us = max(horizon_us for _, _, horizon_us in answers)
        for node, row, _ in answers:
            if found is not None and lacks(row, found):
                self.send(lambda node=node: self.serve_repair(node, key, found, vouched_us, lambda: None))  # type: ignore[misc]

    def is_completed(self, attempt: Attempt) -> bool:
        return attempt.timestamp.micros <= self.completed_us

    def judge(self, who: str, key: bytes, found: Row | None, acked: list[Attempt]) -> None:
        if not acked:
            return
        newest = max(acked, key=lambda attempt: attempt.timestamp)
        cells = () if found is None else rows.live_cells(found, self.now_s)
        if cells:
            if cells[0].written_at < newest.timestamp:
                self.violation = f"{who} at {self.now_s} found {cells[0]}, older than {newest.row}"
            return
        if not any(self.is_absence(attempt) for attempt in self.attempts[key] if attempt.timestamp >= newest.timestamp):
            self.violation = f"{who} at {self.now_s} found nothing of {newest.row}"

    def is_absence(self, attempt: Attempt) -> bool:
        return not rows.live_cells(attempt.row, self.now_s)

    # Replicas among themselves

    def exchange(self, one: Node, other: Node, key: bytes) -> None:
        mine, theirs = one.rows.get(key), other.rows.get(key)
        my_horizon, their_horizon = one.standing.horizon_us, other.standing.horizon_us
        one.set(key, self.after_meeting(one, mine, theirs, their_horizon))
        other.set(key, self.after_meeting(other, theirs, mine, my_horizon))

    def synchronise(self, one: Node, other: Node) -> Process:
        for key in KEYS:
            self.exchange(one, other, key)
            yield

    def purge(self, node: Node, key: bytes) -> None:
        row, until_us = node.rows.get(key), self.purges_up_to(node)
        if row is not None and until_us > 0:
            left = rows.purged(row, until_us)
            self.purges += left is not row
            node.set(key, left)

    def round(self, leader: Node) -> Process:
        horizon_us = (self.now_s - MARGIN_S) * SECOND
        needed = self.required_in_round(leader)
        round_ = Round(
            nodes=[node.name for node in (*needed, self.keeper)],
            replicas=[node.name for node in needed],
            horizon_us=horizon_us,
        )
        for _ in range(25):
            for node in (*needed, self.keeper):
                if node.name in round_.waiting_for:
                    self.send(lambda node=node: self.serve_seal(node, round_))  # type: ignore[misc]
            yield
            if not round_.waiting_for:
                break
        if round_.waiting_for:
            return
        for name in sorted(self.lagging(round_), key=lambda name: name != leader.name):
            node = self.named(name)
            yield from self.level(node, [self.named(teacher) for teacher in round_.teachers(name)], round_.authority_us)
            self.note_sealed(node, round_)
        if self.lagging(round_):
            return
        for _ in range(self.passes()):
            for node in needed:
                if node is not leader:
                    yield from self.synchronise(leader, node)
        for _ in range(2):
            for node in needed:
                self.send(lambda node=node: self.serve_complete(node, round_))  # type: ignore[misc]
            yield

    def named(self, name: NodeId) -> Node:
        return next(node for node in self.replicas if node.name == name)

    def serve_seal(self, node: Node, round_: Round) -> None:
        node.standing = node.standing.sealed(round_.horizon_us)
        self.note_sealed(node, round_)

    def note_sealed(self, node: Node, round_: Round) -> None:
        standing, vow, has_hints = node.standing, node.vow, self.has_hints(node, round_.horizon_us)

        def heard() -> None:
            round_.sealed(
                node.name, horizon_us=standing.horizon_us, is_whole=standing.is_whole, has_hints=has_hints, vow=vow
            )

        if self.random.random() < 0.5:
            self.send(heard)
        else:
            heard()

    def level(self, node: Node, teachers: list[Node], horizon_us: int) -> Process:
        vow = node.vow
        if self.adoption_is_closed():
            node.adopting_us = horizon_us
        if self.adoption_synchronises():
            for teacher in teachers:
                yield from self.synchronise(node, teacher)
        if node.vow == vow:
            node.adopting_us = 0
            if node.standing.sealed_us >= horizon_us:
                node.standing = node.standing.adopted(horizon_us)

    def serve_complete(self, node: Node, round_: Round) -> None:
        if self.vow_counts() and node.vow != round_.vows[node.name]:
            return
        if not node.standing.can_complete(round_.horizon_us):
            return
        node.standing = node.standing.completed(round_.horizon_us)
        self.completed_us = max(self.completed_us, round_.horizon_us)
        self.rounds += 1
        self.settle_debt()

    def settle_debt(self) -> None:
        """When all replicas are whole and equally far, the one with the old disk has made up for it."""
        are_even = len({node.standing.horizon_us for node in self.replicas}) == 1
        if are_even and all(node.standing.is_whole for node in self.replicas):
            self.indebted = None

    # The end

    def heal(self) -> None:
        late, self.late = self.late, []
        self.loss = 0.0
        self.calm()
        self.now_s += LAG_S + 100
        for _ in range(2):
            leader = self.random.choice(self.replicas)
            self.spawn(leader, self.round(leader))
            self.calm()
            self.now_s += MARGIN_S + 1
        self.purge_all()
        for message in late:
            message()
        self.calm()
        self.purge_all()
        self.check_end()

    def calm(self) -> None:
        for _ in range(10_000):
            while self.network or self.late:
                self.deliver(self.network or self.late)
            if self.keeper.hints:
                self.deliver_hint()
            elif self.processes:
                self.advance(self.processes[0])
            else:
                return

    def purge_all(self) -> None:
        for node in self.replicas:
            for key in KEYS:
                self.purge(node, key)

    def check_end(self) -> None:
        for key in KEYS:
            held = [node.rows.get(key) for node in self.replicas]
            reading = agreed([(row, node.standing.horizon_us) for row, node in zip(held, self.replicas, strict=True)])
            self.judge(
                "the end", key, reading, [a for a in self.acked[key] if not self.indebted or self.is_completed(a)]
            )
            old = [None if row is None else _until(row, self.completed_us) for row in held]
            if self.violation is None and any(row != old[0] for row in old):
                self.violation = f"replicas differ in the end: {held}"


_REQUIRED = {"ONE": 1, "ANY": 1, "QUORUM": 2}


def _oldest(row: Row) -> Timestamp:
    times = [cell.written_at for cell in row.cells] + [row.deleted_at] * (row.deleted_at != BEGINNING)
    return min(times)


def _until(row: Row, horizon_us: int) -> tuple[object, ...]:
    return tuple(cell for cell in row.cells if cell.written_at.micros <= horizon_us)
