"""Siblings under random walks, beside a model that is obviously right: sets of events.

In the model a replica is the set of the events it has heard of, a client is the set of those it has seen, and what is
read of a replica are the events that no other event there had seen. The product's replicas hold causal rows. After
each step both must read the same, and know of the same events.

Copies of rows are delivered late, repeatedly and in any order. Disks are put back to what they held long ago (or lost),
and processes restarted, one with the other or not. Where purges run, disks keep what they hold, rounds bring all
replicas together and raise their horizons, and each replica purges when it likes.
A walk is replayed by its seed. Planted bugs replace what the methods of the first group do.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from merganser.core import causal_rows, causality, horizon, rows, siblings
from merganser.model.messages import A_CLIENTS
from merganser.model.row import Context, Dot, Row, Span

STEPS = 60
KEY = b"k"
NOW_S = 0


class Replica:
    def __init__(self, number: int) -> None:
        self.number = number
        self.row: Row | None = None
        self.heard: frozenset[bytes] = frozenset()
        self.actors = causality.Actors(number, keys_max=1)
        self.horizon_us = 0
        self.images: list[tuple[Row | None, frozenset[bytes]]] = [(None, frozenset())]


class Client:
    def __init__(self) -> None:
        self.token = b""
        self.seen: frozenset[bytes] = frozenset()


class Walk:
    def __init__(self, seed: int, *, has_purges: bool) -> None:
        self.random = random.Random(seed)
        self.has_purges = has_purges
        self.now_us = 1_000
        self.replicas = [Replica(number) for number in (1, 2, 3)]
        self.clients = [Client() for _ in range(3)]
        self.copies: list[tuple[Row, frozenset[bytes], int]] = []
        self.saw: dict[bytes, frozenset[bytes]] = {}
        """What the writer of each event had seen."""
        self.deletes: set[bytes] = set()
        self.dots: dict[bytes, Dot] = {}
        self.rounds = 0
        self.purged_whole = 0
        self.delete_chance = self.random.choice([0.2, 0.6])
        self.violation: str | None = None

    # What a planted bug replaces

    def mint(self, replica: Replica) -> Span:
        return replica.actors.mint(KEY, self.now_us)

    def put(self, replica: Replica, span: Span, value: bytes | None, seen: Context) -> Row:
        return siblings.put(span, value, seen=seen)

    def seen_by_writer(self, replica: Replica, seen: Context, span: Span) -> Context:
        return siblings.seen_by_writer(seen, span)

    def seen_by_reader(self, row: Row | None) -> Context:
        return siblings.seen_by_reader(row)

    def restart(self, replica: Replica) -> None:
        replica.actors = causality.Actors(replica.number, keys_max=1)

    def merge(self, held: Row, incoming: Row) -> Row:
        return rows.merge(held, incoming)

    def taken(self, replica: Replica, incoming: Row, vouched_us: int) -> Row | None:
        return horizon.taken(
            incoming,
            newest_us=rows.newest(incoming).micros,
            sealed_us=replica.horizon_us,
            floor_us=replica.horizon_us,
            vouched_us=vouched_us,
        )

    def purged(self, row: Row, horizon_us: int) -> Row | None:
        return rows.purged(row, horizon_us)

    # The walk

    def run(self) -> str | None:
        for step in range(STEPS):
            self.now_us += self.random.randint(1, 3)
            self.random.choice(self.habits())()
            self.check(step)
            if self.violation:
                return self.violation
        return None

    def habits(self) -> list[Callable[[], None]]:
        common = [self.write, self.write, self.write, self.read, self.read, self.send, self.receive, self.receive]
        return [*common, *([self.round, self.purge, self.purge] if self.has_purges else [self.lose, self.keep])]

    def read(self) -> None:
        client, replica = self.random.choice(self.clients), self.random.choice(self.replicas)
        client.token = causality.encode(KEY, self.seen_by_reader(replica.row))
        client.seen = replica.heard

    def write(self) -> None:
        client, replica = self.random.choice(self.clients), self.random.choice(self.replicas)
        event = b"%d" % len(self.saw)
        is_blind = self.random.random() < 0.2
        seen = causality.decode(KEY, b"" if is_blind else client.token)
        self.saw[event] = frozenset() if is_blind else client.seen
        is_delete = self.random.random() < self.delete_chance
        if is_delete:
            self.deletes.add(event)
        span = self.mint(replica)
        self.dots[event] = causality.dot_of(span)
        put = self.put(replica, span, None if is_delete else event, seen), self.saw[event] | {event}, A_CLIENTS
        if self.random.random() < 0.8:  # or it reaches some of the others only
            self.take(replica, *put)
        client.token = causality.encode(KEY, self.seen_by_writer(replica, seen, span))
        client.seen = self.saw[event] | {event}
        self.copies.append(put)

    def send(self) -> None:
        replica = self.random.choice(self.replicas)
        if replica.row is not None:
            self.copies.append((replica.row, replica.heard, 0))

    def receive(self) -> None:
        if self.copies:
            copy = self.random.choice(self.copies)
            if self.random.random() < 0.5:
                self.copies.remove(copy)
            self.take(self.random.choice(self.replicas), *copy)

    def take(self, replica: Replica, row: Row, heard: frozenset[bytes], vouched_us: int) -> None:
        part = self.taken(replica, row, vouched_us)
        if part is None:
            return
        replica.row = part if replica.row is None else self.merge(replica.row, part)
        replica.heard |= heard

    def keep(self) -> None:
        replica = self.random.choice(self.replicas)
        replica.images.append((replica.row, replica.heard))

    def lose(self) -> None:
        replica = self.random.choice(self.replicas)
        if self.random.random() < 0.7:
            replica.row, replica.heard = self.random.choice(replica.images)
        if self.random.random() < 0.7:
            self.restart(replica)

    def round(self) -> None:
        """All replicas hold all there is; nothing from before it is taken any more, but from one another."""
        for _ in range(2):
            for one in self.replicas:
                for other in self.replicas:
                    if other.row is not None:
                        self.take(one, other.row, other.heard, other.horizon_us)
        for replica in self.replicas:
            replica.horizon_us = self.now_us
        self.now_us += 1
        self.rounds += 1

    def purge(self) -> None:
        replica = self.random.choice(self.replicas)
        if replica.row is not None:
            replica.row = self.purged(replica.row, replica.horizon_us)
            self.purged_whole += replica.row is None

    # The model

    def check(self, step: int) -> None:
        for replica in self.replicas:
            found = {sibling.value for sibling in siblings.values(replica.row, NOW_S)}
            overwritten = frozenset[bytes]().union(*(self.saw[event] for event in replica.heard))
            expected = replica.heard - overwritten - self.deletes
            if found != expected:
                self.violation = (
                    f"step {step}: replica {replica.number} reads {sorted(found)} instead of {sorted(expected)}"
                )
            self.check_context(step, replica)

    def check_context(self, step: int, replica: Replica) -> None:
        if replica.row is not None and (flaw := causal_rows.flaw_of(replica.row)):
            self.violation = f"step {step}: {flaw}"
        context = () if replica.row is None else replica.row.context
        known = {event for event, dot in self.dots.items() if causality.has_seen(context, dot)}
        if not known <= replica.heard or (not self.has_purges and known != replica.heard):
            self.violation = (
                f"step {step}: replica {replica.number} claims {sorted(known)}, and heard of {sorted(replica.heard)}"
            )
