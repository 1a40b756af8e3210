"""Whether transactions that append to lists and read them may have happened one by one, in an order that time allows.

Each element is appended once, so the longest list that anyone read of a key tells in which order its elements came, and
who wrote what lies before and after what a transaction read. From that follow edges between transactions:

- *ww*: one appended right before the other;
- *wr*: the other read a list that ends with what the one appended;
- *rw*: the one read a list that lacks what the other appended next;
- *rt*: the one had ended when the other began.

All of them together have a cycle if and only if no order exists (Adya 1999, §4; strictness by the last). What was
appended, and is in no list that anyone read, comes after all that is: whoever read the key lacks it. A transaction of
unknown outcome counts as committed if anyone saw something of it; else it may as well not have happened.

Told apart are, by the weakest edges that suffice: *G0* (ww), *G1c* (ww, wr), *G-single* (one rw: a lost update, a torn
read), *G2* (more of them: write skew); and each of these that needs rt, as *against real time* (a stale read). Without
edges are found: *aborted reads* (G1a), *intermediate reads* (G1b), lists that contradict one another (*forks*: elements
lost after they were read, or reordered), elements that are there twice, and some that nobody appended.

Source: Adya 1999, "Weak Consistency"; Kingsbury, Alvaro 2020, "Elle: Inferring Isolation Anomalies".
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import inf

import msgspec


class Listed(msgspec.Struct, frozen=True):
    """The transaction saw this list under ``key``; () if there was none."""

    key: bytes
    elements: tuple[bytes, ...]


class Appended(msgspec.Struct, frozen=True):
    """The transaction appended an element that nobody else appends anywhere."""

    key: bytes
    element: bytes


class Ending(enum.Enum):
    """How a transaction came out, as far as its client knows."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    """Certainly nothing of it was done."""
    UNKNOWN = "unknown"


class Transaction(msgspec.Struct, frozen=True):
    """What one transaction did, in its order; a single append or read of one key is one, too."""

    actions: tuple[Listed | Appended, ...]
    """Of one that may not have committed: what it saw if it did."""
    began_s: float
    ended_s: float = inf
    ending: Ending = Ending.COMMITTED


def anomalies(transactions: Sequence[Transaction]) -> Iterator[str]:
    """Yield a sentence for each thing that no serial order explains; of cycles only the first of the weakest kind."""
    writers = _writers(transactions)
    live = _live(transactions, writers)
    told = list(_blind(transactions, live))
    lists = _lists(transactions, live)
    for key, of_key in lists.items():
        told += _of_lists(key, of_key, transactions, writers)
    yield from told
    if not told:  # the order of the elements is known
        yield from _of_cycles(transactions, _edges(transactions, live, lists, writers))


_Writers = dict[tuple[bytes, bytes], int]
"""Who appended an element under a key, by number."""
_Lists = dict[bytes, list[tuple[int, tuple[bytes, ...]]]]
"""Of each key, who read which list, own appends left out."""


def _writers(transactions: Sequence[Transaction]) -> _Writers:
    writers: _Writers = {}
    for number, transaction in enumerate(transactions):
        for action in transaction.actions:
            if isinstance(action, Appended):
                assert (action.key, action.element) not in writers, "elements are unique"
                writers[action.key, action.element] = number
    return writers


def _live(transactions: Sequence[Transaction], writers: _Writers) -> list[int]:
    """Return, in their order, who has committed: who said so, and whoever was seen by one of them."""
    todo = [number for number, one in enumerate(transactions) if one.ending is Ending.COMMITTED]
    live = set(todo)
    while todo:
        for action in transactions[todo.pop()].actions:
            for element in action.elements if isinstance(action, Listed) else ():
                writer = writers.get((action.key, element))
                if writer is not None and writer not in live:
                    live.add(writer)
                    todo.append(writer)
    return sorted(live)


def _blind(transactions: Sequence[Transaction], live: Sequence[int]) -> Iterator[str]:
    """Yield who does not see what it has appended itself."""
    for number in live:
        own: dict[bytes, tuple[bytes, ...]] = {}
        for action in transactions[number].actions:
            mine = own.get(action.key, ())
            if isinstance(action, Appended):
                own[action.key] = (*mine, action.element)
            elif mine and action.elements[-len(mine) :] != mine:
                yield f"{_named(transactions[number])} does not see what it has appended itself to {action.key!r}"


def _lists(transactions: Sequence[Transaction], live: Sequence[int]) -> _Lists:
    lists: _Lists = {}
    for number in live:
        own: dict[bytes, int] = {}
        for action in transactions[number].actions:
            of_own = own.get(action.key, 0)
            if isinstance(action, Appended):
                own[action.key] = of_own + 1
                continue
            others = action.elements[: len(action.elements) - of_own]
            lists.setdefault(action.key, []).append((number, others))
            if of_own:  # tells the order, too
                lists[action.key].append((number, action.elements))
    return lists


def _of_lists(
    key: bytes,
    lists: Sequence[tuple[int, tuple[bytes, ...]]],
    transactions: Sequence[Transaction],
    writers: _Writers,
) -> Iterator[str]:
    """Yield what is wrong with the lists of one key by themselves."""
    _, longest = max(lists, key=lambda read: len(read[1]))
    appended: dict[int, list[bytes]] = {}
    for (of_key, element), number in writers.items():
        if of_key == key:
            appended.setdefault(number, []).append(element)
    for number, elements in lists:
        reader = _named(transactions[number])
        if len(set(elements)) != len(elements):
            yield f"duplicate: {reader} saw an element twice in {_spelt(key, elements)}"
        if elements != longest[: len(elements)]:
            yield f"fork: {reader} saw {_spelt(key, elements)}, another {_spelt(key, longest)}"
        for element in elements:
            writer = writers.get((key, element))
            if writer is None:
                yield f"from nowhere: {reader} saw {element!r} in {key!r}, which nobody appended"
            elif transactions[writer].ending is Ending.ABORTED:
                yield f"G1a, aborted read: {reader} saw {element!r} in {key!r} of {_named(transactions[writer])}"
            elif transactions[writer].began_s > transactions[number].ended_s:
                yield f"from the future: {reader} saw {element!r} in {key!r} of {_named(transactions[writer])}"
        last = writers.get((key, elements[-1])) if elements else None
        if last is not None and last != number and appended[last][-1] != elements[-1]:
            yield f"G1b, intermediate read: {reader} saw {_spelt(key, elements)} of {_named(transactions[last])}"


WW, WR, RW, RT = "ww", "wr", "rw", "rt"
_Edges = dict[int, dict[int, list[str]]]
"""From whom to whom, and why."""


def _of_cycles(transactions: Sequence[Transaction], edges: _Edges) -> Iterator[str]:
    for suffix, always in ("", (WW, WR)), (" against real time", (WW, WR, RT)):
        for name, kinds, singles in (
            ("G0", always[:1] + always[2:], ()),
            ("G1c", always, ()),
            ("G-single", always, (RW,)),
            ("G2", (*always, RW), ()),
        ):
            cycle = _cycle(edges, kinds, singles)
            if cycle is not None:
                yield f"{name}{suffix}: {_told(cycle, edges, transactions)}"
                return


def _edges(transactions: Sequence[Transaction], live: Sequence[int], lists: _Lists, writers: _Writers) -> _Edges:
    edges: _Edges = {}

    def add(one: int, other: int, kind: str) -> None:
        if one != other:
            kinds = edges.setdefault(one, {}).setdefault(other, [])
            if kind not in kinds:
                kinds.append(kind)

    alive = set(live)
    unseen: dict[bytes, list[int]] = {}
    orders = {key: max((elements for _, elements in of_key), key=len) for key, of_key in lists.items()}
    for (key, element), number in writers.items():
        if number in alive and element not in orders.get(key, ()):
            unseen.setdefault(key, []).append(number)
    for key, order in orders.items():
        later = unseen.get(key, ())
        for one, other in pairwise(order):
            add(writers[key, one], writers[key, other], WW)
        for writer in later if order else ():
            add(writers[key, order[-1]], writer, WW)
        for reader, elements in lists[key]:
            if elements:
                add(writers[key, elements[-1]], reader, WR)
            for writer in (writers[key, order[len(elements)]],) if len(elements) < len(order) else later:
                add(reader, writer, RW)
    _add_real_time(edges, [(number, transactions[number]) for number in live])
    return edges


def _add_real_time(edges: _Edges, live: Sequence[tuple[int, Transaction]]) -> None:
    """Add an edge to each from those that had ended before it, less those that are implied by others."""
    ended: list[tuple[int, Transaction]] = []
    """Nobody of them had ended when another began: all earlier ones come before one of them."""
    begins = sorted((one.began_s, 0, number) for number, one in live)
    ends = sorted((one.ended_s, 1, number) for number, one in live if one.ending is Ending.COMMITTED)
    by_number = dict(live)
    for moment_s, is_end, number in sorted([*begins, *ends]):
        if is_end:
            began_s = by_number[number].began_s
            ended = [(other, one) for other, one in ended if one.ended_s >= began_s]
            ended.append((number, by_number[number]))
            continue
        for other, one in ended:
            if one.ended_s < moment_s:
                edges.setdefault(other, {}).setdefault(number, []).append(RT)


def _cycle(edges: _Edges, kinds: Sequence[str], singles: Sequence[str]) -> list[int] | None:
    """Return the shortest cycle of edges of ``kinds``, with exactly one of ``singles`` if there are any."""
    best: list[int] | None = None
    for component in _components(edges, {*kinds, *singles}):
        inside = set(component)
        for start in component:
            for first, why in edges[start].items():
                if first in inside and not set(singles or kinds).isdisjoint(why):
                    path = _path(edges, first, start, kinds, inside)
                    if path is not None and (best is None or len(path) < len(best)):
                        best = path
    return best


def _path(edges: _Edges, start: int, end: int, kinds: Sequence[str], inside: set[int]) -> list[int] | None:
    """Return the shortest way from ``start`` to ``end``, both included."""
    came_from = {start: start}
    todo = deque((start,))
    while todo:
        at = todo.popleft()
        if at == end:
            path = [at]
            while path[-1] != start:
                path.append(came_from[path[-1]])
            return path[::-1]
        for after, why in edges.get(at, {}).items():
            if after in inside and after not in came_from and not set(kinds).isdisjoint(why):
                came_from[after] = at
                todo.append(after)
    return None


def _components(edges: _Edges, kinds: set[str]) -> list[list[int]]:
    """Return those who are on cycles together (Tarjan 1972), whoever is on none left out."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found = []

    def after(node: int) -> Iterator[int]:
        return (other for other, why in edges.get(node, {}).items() if not kinds.isdisjoint(why))

    for root in edges:
        work = [] if root in index else [(root, after(root))]
        while work:
            node, others = work[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                stack.append(node)
                on_stack.add(node)
            for other in others:
                if other not in index:
                    work.append((other, after(other)))
                    break
                if other in on_stack:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node)
                    component, stack[at:] = stack[at:], []
                    on_stack.difference_update(component)
                    if len(component) > 1:
                        found.append(component)
    return found


def _told(cycle: Sequence[int], edges: _Edges, transactions: Sequence[Transaction]) -> str:
    steps = [
        f"{_named(transactions[one])} -{'/'.join(edges[one][other])}->"
        for one, other in zip(cycle, [*cycle[1:], cycle[0]], strict=True)
    ]
    return " ".join(steps) + " the first"


def _named(transaction: Transaction) -> str:
    return f"[{', '.join(_acted(transaction.actions))}; {transaction.began_s:.4f} to {transaction.ended_s:.4f} s]"


def _acted(actions: Iterable[Listed | Appended]) -> Iterator[str]:
    for action in actions:
        if isinstance(action, Appended):
            yield f"append {action.element.decode(errors='replace')} to {action.key!r}"
        else:
            yield f"read {_spelt(action.key, action.elements)}"


def _spelt(key: bytes, elements: Sequence[bytes]) -> str:
    shown = elements[-6:]
    dots = "..., " if len(shown) < len(elements) else ""
    return f"{key!r}=({dots}{', '.join(one.decode(errors='replace') for one in shown)})"
