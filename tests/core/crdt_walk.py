"""Values that merge themselves under random walks, beside a model that is obviously right: sets of events.

In the model a replica is the set of the events it has heard of. Each event is an operation at one place (an element of
a set, a register, also one of a sketch, a counter, a maximum), together with the events of that place that its
coordinator had seen, which it replaces; an increment replaces nothing. What a replica reads are the events that no
other event there replaces: of a counter, their sum.
Whoever hears of an increment has heard of its session's earlier ones.

Clients count under sessions, at quorums of two, and send an update again until a replica that was asked says that it
was made: through other coordinators, whose earlier attempts may still be on their way, and arrive at any time later.
Copies of rows are delivered late, repeatedly and in any order. Rounds bring all replicas together and raise their
horizons, and each replica purges when it likes, also not at all; sessions end.
A walk is replayed by its seed. Planted bugs replace what the methods of the first group do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

import msgspec

from merganser.core import causal_rows, causality, horizon, rows
from merganser.core.crdt import reading, sketch, types, updates
from merganser.model import crdt
from merganser.model.crdt import Operation, OperationId, Session, Shown
from merganser.model.errors import RequestError
from merganser.model.messages import A_CLIENTS
from merganser.model.row import Context, Row, Span

STEPS = 80
KEY = b"k"
Place = tuple[bytes, ...]
COUNTERS = (crdt.COUNTER, crdt.GROW_COUNTER)
REPLACING = (crdt.REGISTER, crdt.MULTI_REGISTER, crdt.FLAG, crdt.DISABLE_FLAG)
"""Of what was there, what the client has seen."""


def crowded(element: bytes) -> bytes:
    """Return another element that raises the register of ``element``, to something else."""
    register, run = sketch.place_of(element)
    others = (b"%d" % number for number in range(10**6))
    return next(one for one in others if sketch.place_of(one)[0] == register and sketch.place_of(one)[1] != run)


SEEN = (b"x", crowded(b"x"), b"y", b"z")
"""Elements of a sketch, of which the first two share a register."""


class Event(msgspec.Struct, frozen=True):
    number: int
    places: frozenset[Place]
    """That it writes to; a reset none."""
    replaces: frozenset[int]
    operation: Operation
    follows: frozenset[int] = frozenset()
    """Earlier increments of the same session at the same place."""


class Replica:
    def __init__(self, number: int) -> None:
        self.number = number
        self.row: Row | None = None
        self.heard: frozenset[int] = frozenset()
        self.actors = causality.Actors(number)
        self.horizon_us = 0
        self.sealed_us = 0


class Copy(msgspec.Struct, frozen=True):
    row: Row
    heard: frozenset[int]
    vouched_us: int


class Counting(msgspec.Struct):
    """A session, and the update that it is at."""

    session: Session
    sequence: int = 1
    operations: tuple[Operation, ...] = ()
    increments: dict[Place, list[int]] = {}
    events: tuple[Event, ...] = ()


def place_of(operation: Operation) -> Place:
    here = (*operation.path, operation.type.encode())
    if not isinstance(operation.value, bytes) or operation.type not in (crdt.SET, crdt.DISTINCT):
        return here
    if operation.type == crdt.SET:
        return (*here, operation.value)
    return (*here, b"%d" % sketch.place_of(operation.value)[0])


class Walk:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_us = 1_000
        self.replicas = [Replica(number) for number in (1, 2, 3)]
        self.counting: list[Counting] = []
        self.copies: list[Copy] = []
        self.events: dict[int, Event] = {}
        self.tokens: list[tuple[Context, frozenset[int]]] = [((), frozenset())]
        self.purges_chance = self.random.choice([0.3, 1.0])
        self.session_us = self.random.choice([20, 20, 60, 1_000])
        self.made_again = self.folds = self.resets = self.rounds = 0
        self.violation: str | None = None

    # What a planted bug replaces

    def merge(self, held: Row, incoming: Row) -> Row:
        return rows.merge(held, incoming)

    def purged(self, row: Row, horizon_us: int) -> Row | None:
        return rows.purged(row, horizon_us)

    def values(self, row: Row | None) -> list[Shown]:
        return reading.values(row)

    def was_made(self, held: Row | None, update: OperationId) -> bool:
        return updates.was_made(held, update)

    def delta(
        self,
        held: Row | None,
        operations: Iterable[Operation],
        spans: list[Span],
        *,
        session: Session | None = None,
        update: OperationId | None = None,
        seen: Context | None = None,
    ) -> Row | None:
        return updates.delta(held, operations, spans, session=session, update=update, seen=seen)

    # The walk

    def run(self) -> str | None:
        habits: list[Callable[[], None]] = [
            *([self.count] * 4),
            *([self.change] * 5),
            *([self.reset] * 1),
            *([self.send] * 2),
            *([self.receive] * 3),
            self.remember,
            *([self.round, self.purge] * 2),
        ]
        for step in range(STEPS):
            self.now_us += self.random.randint(1, 3)
            try:
                self.random.choice(habits)()
            except RequestError as error:
                return f"step {step}: refused: {error}"
            self.check(step)
            if self.violation:
                return self.violation
        return None

    def asked(self) -> tuple[Row | None, frozenset[int]]:
        """What a read of two replicas finds; both hold it afterwards."""
        two = self.random.sample(self.replicas, 2)
        found = horizon.agreed((replica.row, replica.horizon_us) for replica in two)
        heard = frozenset[int]().union(*(replica.heard for replica in two))
        vouched_us = max(replica.horizon_us for replica in two)
        for replica in two:
            if found is not None:
                self.take(replica, Copy(found, heard, vouched_us))
        return found, heard

    def spans(self, count: int) -> list[Span]:
        replica = self.random.choice(self.replicas)
        spans = []
        for _ in range(count):
            self.now_us += 1
            spans.append(replica.actors.mint(KEY, self.now_us))
        return spans

    def event(self, operation: Operation, heard: frozenset[int], counting: Counting | None = None) -> Event:
        place = place_of(operation)
        all_heard = heard
        heard = heard - self.replaced(heard)  # what is gone already, an update says nothing about
        here = {number for number in heard if place in self.events[number].places}
        if operation.action == types.RESET:
            begin = (*operation.path, *(() if operation.type in (crdt.ANY, crdt.MAP) else (operation.type.encode(),)))
            inside = [
                one.number
                for one in self.events.values()
                if one.number in heard and any(where[: len(begin)] == begin for where in one.places)
            ]
            counters = {
                where
                for number in inside
                if self.events[number].operation.type in COUNTERS
                for where in self.events[number].places
            }
            again = frozenset(
                number for number in all_heard if counters & self.events[number].places
            )  # a floor is a total
            return Event(len(self.events), frozenset(), again.union(inside), operation)
        if counting is not None and operation.type in COUNTERS:
            before = frozenset(counting.increments.get(place, ()))
            return Event(len(self.events), frozenset({place}), frozenset(), operation, before)
        places = frozenset() if operation.action == "remove" else frozenset({place})
        return Event(len(self.events), places, frozenset(here), operation)

    def count(self) -> None:
        open_ones = [one for one in self.counting if one.session.ends_us > self.now_us + 10]
        if not open_ones or self.random.random() < 0.1:
            session = Session(self.now_us + self.session_us, self.random.randint(1, 3), self.now_us)
            open_ones = [Counting(session, increments={})]
            self.counting += open_ones
        counting = self.random.choice(open_ones)
        update = OperationId(counting.session, counting.sequence)
        held, heard = self.asked()
        if not counting.operations:
            counting.operations = tuple(self.increment() for _ in range(self.random.choice([1, 1, 2])))
        elif self.was_made(held, update):
            self.made_again += 1
            self.made(counting)
            return
        if not counting.events:
            for operation in counting.operations:
                event = self.event(operation, heard, counting)
                if event.places and counting.events and event.places == counting.events[-1].places:
                    event = msgspec.structs.replace(event, follows=event.follows | {counting.events[-1].number})
                self.events[event.number] = event
                counting.events += (event,)
        spans = self.spans(updates.dots_needed(held, counting.operations, has_id=True))
        delta = self.delta(held, counting.operations, spans, session=counting.session, update=update)
        assert delta is not None
        closure = frozenset[int]().union(*({event.number, *event.follows} for event in counting.events))
        taken = self.spread(Copy(delta, closure, A_CLIENTS))
        if taken >= 2 and self.random.random() < 0.8:  # else nobody tells the client
            self.made(counting)

    def made(self, counting: Counting) -> None:
        for event in counting.events:
            for place in event.places:
                counting.increments.setdefault(place, []).append(event.number)
        counting.sequence += 1
        counting.operations, counting.events = (), ()

    def increment(self) -> Operation:
        if self.random.random() < 0.25:
            return Operation(crdt.GROW_COUNTER, "increment", self.random.randint(1, 9), (b"m", b"g"))
        action = self.random.choice(["increment", "increment", "decrement"])
        path = self.random.choice([(b"c",), (b"m", b"c")])
        return Operation(crdt.COUNTER, action, self.random.randint(1, 9), path)

    def change(self) -> None:
        held, heard = self.asked()
        operation = self.drawn()
        seen = None
        is_bound = operation.action == "remove" or operation.type in REPLACING
        if is_bound and self.random.random() < 0.5:
            seen, heard = self.random.choice(self.tokens)
        self.update(operation, held, heard, seen)

    def reset(self) -> None:
        held, heard = self.asked()
        targets = [
            Operation(crdt.ANY, types.RESET),
            Operation(crdt.MAP, types.RESET, path=(b"m",)),
            Operation(crdt.COUNTER, types.RESET, path=(b"c",)),
            Operation(crdt.ANY, types.RESET, path=(b"s",)),
            Operation(crdt.DISTINCT, types.RESET, path=(b"n",)),
        ]
        self.resets += 1
        self.update(self.random.choice(targets), held, heard, None)

    def update(self, operation: Operation, held: Row | None, heard: frozenset[int], seen: Context | None) -> None:
        spans = self.spans(updates.dots_needed(held, (operation,), has_id=False))
        delta = self.delta(held, (operation,), spans, seen=seen)
        if delta is None:
            return
        event = self.event(operation, heard)
        self.events[event.number] = event
        self.spread(Copy(delta, frozenset({event.number}), A_CLIENTS))

    def drawn(self) -> Operation:
        flags, numbers = [crdt.FLAG, crdt.DISABLE_FLAG], [crdt.DISTINCT, crdt.MAXIMUM, crdt.MINIMUM]
        kind = self.random.choice([*[crdt.SET] * 3, crdt.REGISTER, *flags, *numbers, *numbers])
        path = self.random.choice([(), (b"m",)])
        if kind == crdt.DISTINCT:
            return Operation(kind, "add", self.random.choice(SEEN), (b"n",))
        if kind in (crdt.MAXIMUM, crdt.MINIMUM):
            action = "raise" if kind == crdt.MAXIMUM else "lower"
            return Operation(kind, action, self.random.randint(-9, 9), (b"m", kind.encode()))
        if kind == crdt.SET:
            action = self.random.choice(["add", "add", "remove"])
            return Operation(kind, action, self.random.choice([b"x", b"xx", b""]), (*path, b"s"))
        if kind == crdt.REGISTER:
            kind = self.random.choice([crdt.REGISTER, crdt.MULTI_REGISTER])
            return Operation(kind, "assign", b"%d" % len(self.events), (*path, kind.encode()))
        return Operation(kind, self.random.choice(["enable", "disable"]), None, (*path, kind.encode()))

    def spread(self, copy: Copy) -> int:
        """Send a delta to some; it may arrive anywhere later. Returns how many took it."""
        chosen = self.random.sample(self.replicas, self.random.choice([0, 1, 2, 2, 3]))
        self.copies.append(copy)
        return sum(self.take(replica, copy) for replica in chosen)

    def send(self) -> None:
        replica = self.random.choice(self.replicas)
        if replica.row is not None:
            self.copies.append(Copy(replica.row, replica.heard, replica.horizon_us))

    def receive(self) -> None:
        if self.copies:
            copy = self.random.choice(self.copies)
            if self.random.random() < 0.5:
                self.copies.remove(copy)
            self.take(self.random.choice(self.replicas), copy)

    def take(self, replica: Replica, copy: Copy) -> bool:
        part = horizon.taken(
            copy.row,
            newest_us=rows.newest(copy.row).micros,
            sealed_us=replica.sealed_us,
            floor_us=replica.horizon_us,
            vouched_us=copy.vouched_us,
        )
        if part is None:
            return False
        replica.row = part if replica.row is None else self.merge(replica.row, part)
        replica.heard |= copy.heard
        return True

    def remember(self) -> None:
        held, heard = self.asked()
        self.tokens.append((() if held is None else held.context, heard))

    def round(self) -> None:
        """All replicas hold all there is; nothing from before it is taken any more, but from one another."""
        for _ in range(2):
            for one in self.replicas:
                for other in self.replicas:
                    one.row = horizon.met(
                        one.row,
                        other.row,
                        horizon_us=one.horizon_us,
                        floor_us=one.horizon_us,
                        other_us=other.horizon_us,
                    )
                    one.heard |= other.heard
        for replica in self.replicas:
            replica.sealed_us = self.now_us
            if self.random.random() < 0.8:
                replica.horizon_us = self.now_us
        self.now_us += 1
        self.rounds += 1

    def purge(self) -> None:
        for replica in self.replicas:
            if replica.row is not None and self.random.random() < self.purges_chance:
                before = len(replica.row.cells)
                replica.row = self.purged(replica.row, replica.horizon_us)
                self.folds += replica.row is not None and len(replica.row.cells) < before

    # The model

    def check(self, step: int) -> None:
        for replica in self.replicas:
            found, expected = flattened(self.values(replica.row)), self.expected(replica.heard)
            if found != expected:
                self.violation = f"step {step}: replica {replica.number} reads {found} instead of {expected}"
            if replica.row is not None and (flaw := causal_rows.flaw_of(replica.row)):
                self.violation = f"step {step}: {flaw}"

    def expected(self, heard: frozenset[int]) -> dict[Place, object]:
        alive: dict[Place, list[Event]] = {}
        for number in sorted(heard - self.replaced(heard)):
            for place in self.events[number].places:
                alive.setdefault(place, []).append(self.events[number])
        found = {place: self.worth(events) for place, events in alive.items()}
        registers = [place for place in found if place[:-1] == (b"n", crdt.DISTINCT.encode())]
        if registers:
            found[registers[0][:-1]] = len(registers)  # of so few elements a sketch counts what it has in registers
        return {place: worth for place, worth in found.items() if place not in registers}

    def replaced(self, heard: frozenset[int]) -> frozenset[int]:
        return frozenset[int]().union(*(self.events[number].replaces for number in heard))

    def worth(self, events: list[Event]) -> object:
        kind = events[0].operation.type
        if kind in COUNTERS:
            return sum(amount(event.operation) for event in events)
        if kind == crdt.SET:
            return True
        if kind == crdt.FLAG:
            return any(event.operation.action == "enable" for event in events)
        if kind == crdt.DISABLE_FLAG:
            return all(event.operation.action == "enable" for event in events)
        written = [event.operation.value for event in events]
        if kind in (crdt.MAXIMUM, crdt.MINIMUM):
            return (max if kind == crdt.MAXIMUM else min)(value for value in written if isinstance(value, int))
        return written[-1] if kind == crdt.REGISTER else sorted(written, key=str)


def amount(operation: Operation) -> int:
    assert isinstance(operation.value, int)
    return operation.value if operation.action == "increment" else -operation.value


def flattened(values: Iterable[Shown], path: Place = ()) -> dict[Place, object]:
    """What is read, by place."""
    found: dict[Place, object] = {}
    for shown in values:
        here = (*path, shown.type.encode())
        if shown.type == crdt.MAP:
            assert isinstance(shown.value, tuple)
            for field in shown.value:
                assert not isinstance(field, bytes)
                found |= flattened([field.of], (*path, field.name))
        elif shown.type == crdt.SET:
            assert isinstance(shown.value, tuple)
            found |= {(*here, element): True for element in shown.value if isinstance(element, bytes)}
        elif shown.type == crdt.MULTI_REGISTER:
            assert isinstance(shown.value, tuple)
            found[here] = sorted(shown.value, key=str)
        else:
            found[here] = shown.value
    return found
