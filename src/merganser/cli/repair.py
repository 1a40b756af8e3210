"""``merganser repair``: compare all replicas of a cluster now, and put right what differs or is damaged.

Each partition of each table is a piece of work: every replica of it that is up looks through its own rows, then one of
them compares itself with each other one. A few pieces are under way at a time. Nothing is lost by stopping in between.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from merganser.cli.admin_port import fetch, post, print_json
from merganser.core.ring import Ring
from merganser.model.cluster import ClusterMap, NodeRecord
from merganser.model.errors import ConfigurationError
from merganser.model.ids import ClusterId, NodeId, PartitionId
from merganser.model.policy import Policy
from merganser.node.admin import HEADER

AT_ONCE = 4
"""Pieces under way: as many as keep three nodes busy, and few enough that clients do not notice."""
TIMEOUT_S = 900.0  # longer than a node gives one partition


class Piece(msgspec.Struct, frozen=True):
    """One partition of one table."""

    table: str
    wire: str
    partition: int
    addresses: tuple[str, ...]
    """Admin ports of its replicas that are up; the first compares."""
    away: tuple[int, ...]
    """Numbers of those that are not."""


class Done(msgspec.Struct):
    """What came of a piece."""

    table: str
    partition: int
    compared: bool = False
    """With every other replica."""
    differing: int = 0
    repaired: int = 0
    damaged: int = 0
    healed: int = 0
    problems: list[str] = []


def repair(admin: str, *, table: str | None, partition: int | None, is_dry_run: bool, as_json: bool) -> bool:
    """Repair what is asked for, and print what came of it; tell whether everything could be compared and is well.

    Raises:
        ConfigurationError: nobody answers at ``admin``, or there is no such table or partition.
        KeyboardInterrupt: after what was done has been printed.
    """
    pieces = _pieces(admin, table, partition)
    done: list[Done] = []
    try:
        _work(pieces, done, is_dry_run=is_dry_run, is_quiet=as_json)
    finally:
        _tell(done, pieces, is_dry_run=is_dry_run, as_json=as_json)
    return len(done) == len(pieces) and not any(one.problems for one in done)


def _pieces(admin: str, table: str | None, partition: int | None) -> list[Piece]:
    status, ring_page = fetch(admin, "/status"), fetch(admin, "/ring")
    tables = [known for known in status["tables"] if table in (None, known["name"])]
    if table is not None and not tables:
        there = ", ".join(sorted(known["name"] for known in status["tables"])) or "none"
        raise ConfigurationError(f"no table is called {table!r}; there are {there}")
    count = ring_page["partitions"]
    if partition is not None and not 0 <= partition < count:
        raise ConfigurationError(f"--partition must be 0 to {count - 1}, not {partition}")
    ring, up = Ring(_map(ring_page)), _up(ring_page)
    numbers = {node["id"]: node["number"] for node in ring_page["nodes"]}
    partitions = range(count) if partition is None else (partition,)
    return [
        _piece(known, p, ring.preference_list(PartitionId(p), known["rule"]), up, numbers)
        for known in tables
        for p in partitions
    ]


def _piece(
    table: dict[str, Any], partition: int, replicas: Sequence[NodeId], up: dict[NodeId, str], numbers: dict[NodeId, int]
) -> Piece:
    turned = [*replicas[partition % len(replicas) :], *replicas[: partition % len(replicas)]]  # spreads the work
    there = tuple(up[node] for node in turned if node in up)
    away = tuple(numbers[node] for node in replicas if node not in up)
    return Piece(table["name"], table["wire"], partition, there, away)


def _map(page: dict[str, Any]) -> ClusterMap:
    """Return as much of the cluster map as tells who holds what."""
    nodes = tuple(
        NodeRecord(
            node["id"],
            node["number"],
            node["peer_address"],
            node["addresses"],
            node["zone"],
            node["machine"],
            data_center=node["data_center"],
        )
        for node in page["nodes"]
    )
    return ClusterMap(
        ClusterId(page["cluster"]),
        page["epoch"],
        page["partitions"],
        nodes,
        tuple(page["owners"]),
        (),
        policies=msgspec.convert(page["policies"], tuple[tuple[int, Policy], ...]),
    )


def _up(page: dict[str, Any]) -> dict[NodeId, str]:
    up: dict[NodeId, str] = {}
    for node in page["nodes"]:
        address = node["addresses"].get("admin", "")
        try:
            fetch(address, "/status")
        except ConfigurationError:
            continue
        up[NodeId(node["id"])] = address
    return up


def _work(pieces: list[Piece], done: list[Done], *, is_dry_run: bool, is_quiet: bool) -> None:
    """Do the pieces, some at a time; what is under way when ctrl-C comes ends by itself, unheard."""
    waiting: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    ended: queue.SimpleQueue[Done] = queue.SimpleQueue()
    for piece in pieces:
        waiting.put(piece)

    def labour() -> None:
        for piece in _taken(waiting):
            ended.put(_repaired(piece, is_dry_run=is_dry_run))

    for _ in range(min(AT_ONCE, len(pieces))):
        threading.Thread(target=labour, daemon=True).start()
    console = Console(stderr=True)
    columns = (TextColumn("comparing" if is_dry_run else "repairing"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=is_quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=len(pieces))
        for _ in pieces:
            done.append(ended.get())
            bar.advance(task)


def _taken(waiting: queue.SimpleQueue[Piece]) -> Iterator[Piece]:
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return


def _repaired(piece: Piece, *, is_dry_run: bool) -> Done:
    done = Done(piece.table, piece.partition, problems=[f"node {number} is away" for number in piece.away])
    if not piece.addresses:
        done.problems.append("no replica can be reached")
    question = {"table": piece.table, "wire": piece.wire, "partition": piece.partition, "dry_run": int(is_dry_run)}
    for address in reversed(piece.addresses):  # the one that compares comes last: then all know their own rows
        is_last = address == piece.addresses[0]
        path = "/repair?" + urlencode({**question, "scrub_only": int(not is_last)})
        try:
            fetch(address, "/status")  # a node that hangs meanwhile costs seconds, not the time of a whole partition
            _add(done, post(address, path, header=HEADER.decode(), timeout_s=TIMEOUT_S), has_compared=is_last)
        except ConfigurationError as error:
            done.problems.append(str(error))
    done.compared = done.compared and not piece.away
    return done


def _add(done: Done, answer: dict[str, Any], *, has_compared: bool) -> None:
    """Add what one node has done."""
    done.damaged += answer["damaged"]
    done.healed += answer["healed"]
    done.problems += answer["problems"]
    peers = answer["peers"].values()
    done.compared = has_compared and all(peer["problem"] is None for peer in peers)
    done.differing += sum(peer["differing"] for peer in peers)
    done.repaired += sum(peer["met_here"] + peer["met_there"] for peer in peers)
    done.problems += [f"{node}: {peer['problem']}" for node, peer in answer["peers"].items() if peer["problem"]]


def _tell(done: list[Done], pieces: list[Piece], *, is_dry_run: bool, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": is_dry_run, "partitions": len(pieces), "done": msgspec.to_builtins(done)})
        return
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("table", "partitions", "compared", "differing", "repaired", "damaged", "healed", "problems"):
        table.add_column(column, overflow="fold")
    for name in dict.fromkeys(piece.table for piece in pieces):
        table.add_row(name, str(sum(piece.table == name for piece in pieces)), *_figures(name, done))
    console.print(table)
    problems: dict[str, int] = {}
    for one in done:
        for problem in dict.fromkeys(one.problems):
            problems[problem] = problems.get(problem, 0) + 1
    for problem, count in problems.items():
        console.print(f"{count} partitions: {problem}", style="red", markup=False)
    if len(done) < len(pieces):
        console.print(f"stopped with {len(done)} of {len(pieces)} partitions done: run it again at any time")
    elif is_dry_run:
        console.print("dry run: nothing was put in place; damage that was met is healed in the background, as ever")


def _figures(name: str, done: list[Done]) -> tuple[str, ...]:
    mine = [one for one in done if one.table == name]
    return (
        str(sum(one.compared for one in mine)),
        str(sum(one.differing for one in mine)),
        str(sum(one.repaired for one in mine)),
        str(sum(one.damaged for one in mine)),
        str(sum(one.healed for one in mine)),
        str(sum(bool(one.problems) for one in mine)),
    )
