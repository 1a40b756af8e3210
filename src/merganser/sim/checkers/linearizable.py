"""Whether each key of a leader-based table may have been one register on which operations happened one at a time.

Each operation must seem to happen at one instant between its begin and its end; one that has no end (its outcome is
unknown) at any instant after its begin, or never. Keys are judged one by one, which is enough (Herlihy, Wing 1990).

The checker walks through begins and ends in the order of time and keeps every *configuration* that explains what it
has met: what the register holds, and which of the operations under way have happened already. An operation is made to
happen as late as it can be, when it ends (just in time); a configuration in which it cannot have happened by then is
dropped, and if none is left, nothing explains the history. Three things keep them few, and change no answer:

- a read that fits happens at once: it changes nothing, so waiting gains nothing;
- unknown operations that do the same happen in the order in which they began: the later could stand for the earlier;
- of two configurations that differ only in unknown operations, the one that used fewer can do what the other can.

What is certainly not done must be left out. A compare-and-set, or an add, that was refused is a `Read` of what it saw.
The order of begins and ends at one moment is not known, so begins go first: these operations overlap.

Source: Wing, Gong 1993, "Testing and Verifying Concurrent Objects"; Lowe 2017, "Testing for Linearizability".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from math import inf

import msgspec

CONFIGURATIONS_MAX = 200_000
"""Of one step; a simulated run needs some hundreds, and a second of CPU is spent on so many."""


class Read(msgspec.Struct, frozen=True):
    """It saw this value; None: no such item."""

    value: bytes | None


class Put(msgspec.Struct, frozen=True):
    """The register is this from now on; None: deleted."""

    value: bytes | None


class CompareAndSet(msgspec.Struct, frozen=True):
    """The register was ``expected`` and is ``value`` from now on; of unknown outcome: if it was."""

    expected: bytes | None
    value: bytes | None


class Add(msgspec.Struct, frozen=True):
    """The number in the register, 0 if there is none, grows by ``amount``."""

    amount: int
    total: int | None = None
    """What it became, as its client was told; None: not told."""


Action = Read | Put | CompareAndSet | Add


class Operation(msgspec.Struct, frozen=True):
    """One operation on one key."""

    key: bytes
    action: Action
    began_s: float
    ended_s: float = inf
    """Never: its outcome is unknown."""


class TooManyConfigurationsError(Exception):
    """The history has so many explanations, or nearly, that it is not known whether there is one."""


def flaws(operations: Iterable[Operation], *, configurations_max: int = CONFIGURATIONS_MAX) -> Iterator[str]:
    """Yield a sentence for each key whose operations nothing explains.

    Args:
        operations: of all keys, none of them certainly undone; the registers hold nothing before the first.
        configurations_max: of one key in one step; what needs more is told as a flaw, too.
    """
    by_key: dict[bytes, list[Operation]] = {}
    for operation in operations:
        by_key.setdefault(operation.key, []).append(operation)
    for key, of_key in by_key.items():
        try:
            culprit = culprit_in(of_key, configurations_max=configurations_max)
        except TooManyConfigurationsError:
            yield f"{key!r}: too many ways to explain its {len(of_key)} operations, so it is not known if one holds"
            continue
        if culprit is not None:
            yield f"{key!r}: nothing explains {culprit.action} from {culprit.began_s:.4f} to {culprit.ended_s:.4f} s"


def culprit_in(operations: Sequence[Operation], *, configurations_max: int = CONFIGURATIONS_MAX) -> Operation | None:
    """Return the operation of one key at whose end no explanation is left; None if there is one for all.

    Raises:
        TooManyConfigurationsError: more than ``configurations_max`` at once.
    """
    return _Walk(_that_matter(operations), configurations_max).culprit()


class _Impossible:
    """What an operation makes of a state in which it cannot have happened."""


_IMPOSSIBLE = _Impossible()
_State = bytes | None
_Configuration = tuple[_State, int, int]
"""What the register holds; which known and which unknown operations under way have happened, a bit for each."""


class _Walk:
    def __init__(self, operations: Sequence[Operation], configurations_max: int) -> None:
        self._operations = operations
        self._configurations_max = configurations_max
        self._known: list[int] = []
        """Numbers of the known operations under way that are not reads."""
        self._reads: dict[_State, int] = {}
        """The known reads under way, a bit for each, by what they saw."""
        self._unknown: list[list[int]] = []
        """Numbers of the unknown operations so far, those that do the same together."""
        self._kinds: dict[Action, int] = {}
        self._configurations: list[_Configuration] = [(None, 0, 0)]

    def culprit(self) -> Operation | None:
        for moment in _moments(self._operations):
            number, operation = moment[2], self._operations[moment[2]]
            if moment[1] == 0:
                self._begin(number, operation)
            elif not self._end(number, operation):
                return operation
        return None

    def _begin(self, number: int, operation: Operation) -> None:
        action = operation.action
        if operation.ended_s == inf:
            if action not in self._kinds:
                self._kinds[action] = len(self._unknown)
                self._unknown.append([])
            self._unknown[self._kinds[action]].append(number)
        elif isinstance(action, Read):
            self._reads[action.value] = self._reads.get(action.value, 0) | 1 << number
            self._configurations = [
                (state, known | 1 << number if state == action.value else known, unknown)
                for state, known, unknown in self._configurations
            ]
        else:
            self._known.append(number)

    def _end(self, number: int, operation: Operation) -> bool:
        """Keep the configurations in which the operation has happened, and those that come of making it happen."""
        bit = 1 << number
        met = _Met()
        todo: deque[_Configuration] = deque(c for c in self._configurations if met.is_news(c))
        kept = _Met()
        while todo:
            configuration = todo.popleft()
            state, known, unknown = configuration
            if known & bit:
                kept.is_news((state, known & ~bit, unknown))
                continue
            todo.extend(later for later in self._next(configuration) if met.is_news(later))
            if met.count > self._configurations_max:
                raise TooManyConfigurationsError
        if isinstance(operation.action, Read):
            self._reads[operation.action.value] &= ~bit
        else:
            self._known.remove(number)
        self._configurations = kept.all()
        return bool(self._configurations)

    def _next(self, configuration: _Configuration) -> Iterator[_Configuration]:
        """Yield what may come next: one more operation under way happens, and the reads that it lets happen."""
        state, known, unknown = configuration
        for number in self._known:
            if not known >> number & 1:
                after = _after(state, self._operations[number].action)
                if not isinstance(after, _Impossible):
                    yield after, known | 1 << number | self._reads.get(after, 0), unknown
        for alike in self._unknown:
            first = next((number for number in alike if not unknown >> number & 1), None)
            if first is None:
                continue
            after = _after(state, self._operations[first].action)
            if not isinstance(after, _Impossible) and after != state:
                yield after, known | self._reads.get(after, 0), unknown | 1 << first


class _Met:
    """Configurations, less those that another one makes superfluous."""

    def __init__(self) -> None:
        self._unknowns: dict[tuple[_State, int], list[int]] = {}
        self.count = 0

    def is_news(self, configuration: _Configuration) -> bool:
        state, known, unknown = configuration
        others = self._unknowns.setdefault((state, known), [])
        if any(other & unknown == other for other in others):
            return False
        others[:] = [other for other in others if other & unknown != unknown]
        others.append(unknown)
        self.count += 1
        return True

    def all(self) -> list[_Configuration]:
        return [(state, known, one) for (state, known), unknowns in self._unknowns.items() for one in unknowns]


def _after(state: _State, action: Action) -> _State | _Impossible:
    """Return what the register holds after ``action``."""
    match action:
        case Put(value):
            return value
        case Read(value):
            return state if state == value else _IMPOSSIBLE
        case CompareAndSet(expected, value):
            return value if state == expected else _IMPOSSIBLE
        case Add(amount, total):
            number = number_in(state)
            if number is None or (total is not None and number + amount != total):
                return _IMPOSSIBLE
            return b"%d" % (number + amount)


def number_in(value: bytes | None) -> int | None:
    """Return the number that ``value`` spells, 0 for None; None if it spells none."""
    try:
        return 0 if value is None else int(value)
    except ValueError:
        return None


def _moments(operations: Sequence[Operation]) -> list[tuple[float, int, int]]:
    """Return begins (0) and ends (1) of the operations by number, in the order of time, begins first."""
    begins = [(operation.began_s, 0, number) for number, operation in enumerate(operations)]
    ends = [(operation.ended_s, 1, number) for number, operation in enumerate(operations) if operation.ended_s < inf]
    return sorted(begins + ends)


def _that_matter(operations: Sequence[Operation]) -> list[Operation]:
    """Return the operations without those of unknown outcome that explain nothing: reads, and values nobody saw."""
    seen: set[bytes | None] = set()
    has_adds = False
    for operation in operations:
        match operation.action:
            case Read(value):
                seen.add(value)
            case CompareAndSet(expected):
                seen.add(expected)
            case Add():
                has_adds = True
    return [operation for operation in operations if operation.ended_s < inf or _may_be_seen(operation, seen, has_adds)]


def _may_be_seen(operation: Operation, seen: set[bytes | None], has_adds: bool) -> bool:
    match operation.action:
        case Read():
            return False
        case Put(value) | CompareAndSet(_, value):
            return value in seen or has_adds
        case Add():
            return True
