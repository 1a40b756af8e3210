"""``merganser advise``: how stale reads of a table are, and would be with other numbers, by what its nodes have
measured."""

from __future__ import annotations

import math
import random
from typing import Any
from urllib.parse import quote

import msgspec
from rich.console import Console
from rich.table import Table

from merganser.cli.admin_port import fetch, print_json
from merganser.core import staleness
from merganser.core.staleness import Basis, Measured, Prediction
from merganser.model.errors import ConfigurationError, RequestError
from merganser.service.staleness import Told, basis, measured

PROBABILITIES = (0.9, 0.99, 0.999)
TRIALS = 20_000
POINTS = 40
_MORE = "Have nodes write to the table for a minute or more, and ask again"


def advise(
    admin: str, table: str, *, n: int | None, r: int | None, w: int | None, is_plotted: bool, as_json: bool
) -> None:
    """Print what reads and writes come to for the numbers that are given, or for all there are.

    Args:
        admin: port of any node.
        table: its name.
        n: replicas of each key; None: as the table has them.
        r: replicas that are read; None: each number there is.
        w: acks of a write; None: each number there is.
        is_plotted: draw the curves, too.
        as_json: for scripts.

    Raises:
        ConfigurationError: there are no such numbers, or nothing was measured yet; says what to do.
    """
    has_n, told, away = _measured(admin, table)
    rests_on = basis(told)
    if not rests_on.is_enough:
        why = "".join(f"; {line}" for line in _missed(len(told), away))
        raise ConfigurationError(f"{_counted(rests_on)}: that is too little. {_MORE}{why}")
    found = measured(told)
    replicas = has_n if n is None else n
    choices = [
        (reads, writes)
        for reads in (range(1, replicas + 1) if r is None else (r,))
        for writes in (range(1, replicas + 1) if w is None else (w,))
    ]
    predicted = {choice: _predict(found, replicas, *choice) for choice in choices}
    if as_json:
        known = {**rests_on._asdict(), "is_good": rests_on.is_good}
        choices_told = [_told(replicas, *one) for one in predicted.items()]
        numbers = [node["number"] for node in away]
        print_json({"table": table, "n": replicas, "basis": known, "away": numbers, "choices": choices_told})
        return
    console = Console()
    for line in _missed(len(told), away):
        console.print(line, style="bold", highlight=False)
    console.print(_summary(replicas, predicted))
    console.print(
        "fresh: how likely a read that begins when a write is acknowledged sees it; then how long after that a read "
        "must begin to see it so likely; 2 versions: how likely it returns this write or the one before",
        style="dim",
    )
    console.print(f"by {_counted(rests_on)}", style="dim")
    if not rests_on.is_good:
        rare = f"what happens once in a hundred times shows with {staleness.BASIS_GOOD} of each, on each link"
        console.print(f"take the last columns with care: {rare}. {_MORE}", style="bold")
    if is_plotted:
        print(_plotted(predicted))  # noqa: T201


def _counted(rests_on: Basis) -> str:
    """Return what was measured, in words."""
    writes = f"{rests_on.writes:,} timed writes of the last {rests_on.writes_s:,.0f} s"
    if rests_on.nodes == 1:
        return f"{writes}, on one node"
    return (
        f"{writes}, and {rests_on.questions:,} questions between {rests_on.nodes} nodes of the last "
        f"{rests_on.questions_s:,.0f} s, {rests_on.questions_least:,} at least from one to another"
    )


def _missed(answering: int, away: list[dict[str, Any]]) -> list[str]:
    """Return what is to be said about nodes that do not answer: nothing, or a line."""
    if not away:
        return []
    who = ", ".join(f"node {node['number']} ({node['addresses'].get('admin', 'no admin port')})" for node in away)
    return [
        f"no answer from {who}: this is by what {answering} of {answering + len(away)} nodes have measured; while the "
        f"others are down, what takes more than {answering} of the replicas cannot be done at all"
    ]


def _measured(admin: str, table: str) -> tuple[int, list[Told], list[dict[str, Any]]]:
    """Return how many replicas the table has, what all nodes that answer have measured, and the nodes that do not."""
    told: list[Told] = []
    away: list[dict[str, Any]] = []
    has_n = 0
    for node in fetch(admin, "/ring")["nodes"]:
        address = node["addresses"].get("admin")
        try:
            if address is None:
                raise ConfigurationError("it has no admin port")
            page = fetch(address, f"/staleness?table={quote(table, safe='')}")
        except ConfigurationError:
            if address == admin:
                raise
            away.append(node)
            continue
        has_n = page["n"]
        told.append(msgspec.convert(page, Told))
    if not told:
        page = fetch(admin, f"/staleness?table={quote(table, safe='')}")
        has_n, told = page["n"], [msgspec.convert(page, Told)]
        away = [node for node in away if node["id"] != page["node"]]
    return has_n, told, away


def _predict(found: Measured, n: int, r: int, w: int) -> Prediction:
    try:
        return staleness.predict(found, n=n, r=r, w=w, draw=random.Random(1).random, trials=TRIALS)
    except RequestError as error:
        raise ConfigurationError(str(error)) from None


def _summary(n: int, predicted: dict[tuple[int, int], Prediction]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    times = [f"{p:.1%}" for p in PROBABILITIES]
    for heading in ("n", "r", "w", "fresh", *times, "2 versions", "read p99", "write p99"):
        table.add_column(heading, justify="right")
    for (r, w), found in predicted.items():
        table.add_row(
            *(str(n), str(r), str(w), f"{found.fresh(0.0):.3%}"),
            *(_ms(staleness.quantile(found.visible_after_s, p)) for p in PROBABILITIES),
            f"{found.within_versions(2):.3%}",
            _ms(staleness.quantile(found.reads_s, 0.99)),
            _ms(staleness.quantile(found.writes_s, 0.99)),
        )
    return table


def _told(n: int, choice: tuple[int, int], found: Prediction) -> dict[str, Any]:
    return {
        "n": n,
        "r": choice[0],
        "w": choice[1],
        "fresh_at_once": found.fresh(0.0),
        "visible_after_ms": {f"{p:g}": _number(staleness.quantile(found.visible_after_s, p)) for p in PROBABILITIES},
        "within_versions": {str(k): found.within_versions(k) for k in (1, 2, 3)},
        "read_p99_ms": _number(staleness.quantile(found.reads_s, 0.99)),
        "write_p99_ms": _number(staleness.quantile(found.writes_s, 0.99)),
    }


def _plotted(predicted: dict[tuple[int, int], Prediction]) -> str:
    """Return the share of stale reads over the time since the ack, for the choices that have any."""
    from merganser.bench.plot import plot

    curves = {}
    for (r, w), found in predicted.items():
        ends = [one for one in found.visible_after_s if not math.isinf(one)]
        if found.fresh(0.0) == 1.0 or not ends:
            continue
        last = staleness.quantile(ends, 0.9999)
        times = [last * (number + 1) / POINTS for number in range(POINTS)]
        points = [(0.0, found.fresh(0.0)), *((at, found.fresh(at)) for at in times)]
        curves[f"r={r} w={w}"] = [(max(at * 1000, 1e-6), 1 - fresh) for at, fresh in points]
    if not curves:
        return "no read is stale: r + w > n"
    return plot(curves, x="ms since the ack", y="share of stale reads", is_x_linear=True)


def _ms(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds * 1000:.2f} ms"


def _number(seconds: float) -> float | None:
    return None if math.isinf(seconds) else round(seconds * 1000, 3)
