"""Have a cluster change who is a member and who holds what, over the admin port of any of its nodes.

    plan --shown, and agreed to--> begun --watched--> done | cancelled

The cluster carries it on by itself: whoever watches may stop, and the node that is asked may end; others tell as well.
"""

from __future__ import annotations

import secrets
import time
from typing import Any
from urllib.parse import quote

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from merganser.cli.admin_port import BusyError, NodeAwayError, fetch, post, print_json
from merganser.model.errors import ConfigurationError
from merganser.node.admin import HEADER

BEGIN_TIMEOUT_S = 15.0
"""Longer than a node tries to change the map."""
BEGIN_TRIES = 4
POLL_S = 0.2
PATIENCE_S = 60.0
"""After so long without an answer from any node, who watches gives up."""


class Cluster:
    """The admin ports of the members: any of them will do, and those that leave need not stay."""

    def __init__(self, admin: str) -> None:
        """Ask ``admin`` first, and for the others.

        Raises:
            ConfigurationError: nobody answers there.
        """
        self._addresses = [admin]
        self._by_node: dict[str, str] = {}
        self._learn(fetch(admin, "/ring"))

    def fetch(self, path: str) -> dict[str, Any]:
        """Return what a node says, whichever answers first.

        Raises:
            ConfigurationError: none.
        """
        last: ConfigurationError | None = None
        for address in list(self._addresses):
            try:
                found = fetch(address, path)
            except ConfigurationError as error:
                last = error
                self._addresses.remove(address)
                self._addresses.append(address)
            else:
                return found
        assert last is not None
        raise last

    def post(self, path: str, content: object) -> dict[str, Any]:
        """Have a node do something that is done once however often it is asked for; returns what came of it.

        Raises:
            ConfigurationError: it was refused, or nobody answers; of several tries, what a node said of the last.
        """
        body = orjson.dumps(content)
        busy: BusyError | None = None
        for left in reversed(range(BEGIN_TRIES)):
            try:
                return post(self._addresses[0], path, header=HEADER.decode(), timeout_s=BEGIN_TIMEOUT_S, content=body)
            except (BusyError, NodeAwayError) as error:
                if isinstance(error, BusyError):
                    busy = error
                if not left:
                    raise busy or error from None
                self._addresses.append(self._addresses.pop(0))
                time.sleep(POLL_S)
        raise AssertionError("the last try returns or raises")

    def prefer(self, node: str | None) -> None:
        """Ask that node first from now on, if it is known."""
        address = self._by_node.get(node or "", self._addresses[0])
        if address != self._addresses[0]:
            self._addresses.remove(address)
            self._addresses.insert(0, address)

    def _learn(self, ring: dict[str, Any]) -> None:
        self._by_node = {node["id"]: address for node in ring["nodes"] if (address := node["addresses"].get("admin"))}
        self._addresses += [address for address in self._by_node.values() if address not in self._addresses]


def operate(
    admin: str, wanted: dict[str, object], *, asks: bool, is_detached: bool = False, is_dry_run: bool = False
) -> bool:
    """Show the plan of ``wanted`` (`node.admin_operations.Wanted`), begin it if agreed to, watch; tell whether done.

    Raises:
        ConfigurationError: nobody answers, or it makes no sense.
    """
    cluster, console = Cluster(admin), Console(highlight=False)
    plan = cluster.post("/operation/plan", wanted)
    show_plan(console, plan)
    if plan["objections"] and not wanted.get("forced"):
        console.print("nothing was begun", style="red")
        return False
    if is_dry_run:
        return True
    if asks and not typer.confirm("begin?"):
        console.print("nothing was begun")
        return False
    name = secrets.token_hex(8)
    try:
        cluster.post("/operation/begin", {**wanted, "id": name})
    except (BusyError, NodeAwayError) as error:
        console.print(
            f"{error} (so ended the last of {BEGIN_TRIES} tries; merganser operation tells whether an earlier one has "
            "begun it)",
            style="red",
            markup=False,
            soft_wrap=True,
        )
        return False
    if is_detached:
        console.print(f"operation {name} has begun: merganser operation shows how far it is")
        return True
    return watch(cluster, name, told=plan["told"], console=console)


def watch_running(admin: str) -> bool:
    """Watch what is under way until it ends; tell whether it was done. If nothing is, tell that of what ended last.

    Raises:
        ConfigurationError: nobody answers.
    """
    cluster, console = Cluster(admin), Console(highlight=False)
    page = cluster.fetch("/operation")
    running, last = page["running"], page["last"]
    if running is None:
        console.print("no operation is under way")
        if last is not None:
            console.print(_ended(last))
        return last is None or bool(last["is_done"])
    return watch(cluster, running["id"], told=running["told"], console=console)


def watch(cluster: Cluster, name: str, *, told: str, console: Console) -> bool:
    """Show how far the operation ``name`` is until it ends; tell whether it was done.

    Raises:
        ConfigurationError: no node answers for a minute.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    is_shown = console.is_terminal
    try:
        with Progress(*columns, console=console, disable=not is_shown) as bar:
            ended = _until_ended(cluster, name, bar, bar.add_task(told, total=None), console)
    except KeyboardInterrupt:
        console.print(
            "the operation goes on: merganser operation --wait shows it, merganser operation --cancel gives it up"
        )
        return False
    if ended is None:
        console.print(f"{told}: not under way any more; whoever saw its end does not answer: see merganser ring")
        return False
    is_done: bool = ended["is_done"]
    console.print(f"{told}: {'done' if is_done else 'cancelled'}", style="green" if is_done else "red")
    return is_done


def _until_ended(cluster: Cluster, name: str, bar: Progress, task: TaskID, console: Console) -> dict[str, Any] | None:
    """Return what became of it; None if those who answer do not know."""
    said, moved = "", 0
    heard_s = time.monotonic()
    ended_s: float | None = None
    while True:
        try:
            page = cluster.fetch("/operation")
        except ConfigurationError:
            if time.monotonic() - heard_s > PATIENCE_S:
                raise
            time.sleep(POLL_S)
            continue
        heard_s = time.monotonic()
        running, last = page["running"], page["last"]
        if last is not None and last["id"] == name:
            return dict(last)
        if running is not None and running["id"] == name:
            ended_s = None
            cluster.prefer(running["driver"])  # it knows what is waited for
            moved = max(moved, running["moved"])  # a step on the way may undo a replica or two for a time
            bar.update(task, total=running["moves"] or None, completed=moved, description=_told(running))
            if bar.disable and (line := f"{running['step']}: {moved} of {running['moves']}") != said:
                said = line
                console.print(line)
        else:
            ended_s = ended_s or heard_s  # a node that has yet to hear of it, or has started again since
            if heard_s - ended_s > PATIENCE_S / 6:
                return None
        time.sleep(POLL_S)


def cancel(admin: str) -> None:
    """Give up what is under way.

    Raises:
        ConfigurationError: nobody answers, or nothing is.
    """
    cluster, console = Cluster(admin), Console(highlight=False)
    running = cluster.fetch("/operation")["running"]
    if running is None:
        raise ConfigurationError("no operation is under way")
    cluster.post(f"/operation/cancel?id={quote(running['id'])}", {})
    console.print(f"cancelled: {running['told']}; what has changed hands stays so")


def show(admin: str, *, as_json: bool) -> None:
    """Print what is under way, and what became of the last.

    Raises:
        ConfigurationError: nobody answers.
    """
    cluster = Cluster(admin)
    page = cluster.fetch("/operation")
    if page["running"] is not None:
        cluster.prefer(page["running"]["driver"])
        page = cluster.fetch("/operation")
    if as_json:
        print_json(page)
        return
    console = Console(highlight=False)
    running, last = page["running"], page["last"]
    if running is None:
        console.print("no operation is under way")
    else:
        seconds = max(0, int(time.time() - running["began_us"] / 1e6))
        console.print(f"{running['told']}: under way for {seconds} s (operation {running['id']})")
        console.print(
            _told(running)
            + f"; {running['moved']} of {running['moves']} partitions have changed their {_what(running['kind'])}"
        )
        console.print(f"driven by node {running['driver'] or 'none that answers'}")
    if last is not None:
        console.print(_ended(last))


def _ended(last: dict[str, Any]) -> str:
    return f"before: {last['told']}: {'done' if last['is_done'] else 'cancelled'}"


def _what(kind: str) -> str:
    """Return what of a partition is counted that changes, by the kind of the operation."""
    return "replicas" if kind in ("zones", "policy") else "owner"


def _told(running: dict[str, Any]) -> str:
    waiting = f", waits for: {running['waiting_for']}" if running["waiting_for"] else ""
    return f"{running['step']}{waiting}"


def show_plan(console: Console, plan: dict[str, Any]) -> None:
    """Print what an operation would do, and what speaks against it."""
    moves = f"{plan['moves']} of {plan['partitions']} partitions change their {_what(plan['kind'])}"
    if plan["kind"] == "policy":
        moves += ", while the table is served"
    if plan["kind"] == "split":
        moves = "nothing moves; it cannot be undone"
    console.print(f"plan: {plan['told']}; {moves}")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    has_data_centers = any(node.get("data_center") for node in plan["nodes"])
    for column in ("node", "peers", *(["data centre"] if has_data_centers else []), "zone", "weight", "partitions", ""):
        table.add_column(column, overflow="fold")
    for node in plan["nodes"]:
        notes = [*(["away"] if not node["is_alive"] else []), *(["leaves the cluster"] if node["is_gone"] else [])]
        table.add_row(
            str(node["number"]),
            node["peer_address"],
            *([node.get("data_center", "")] if has_data_centers else []),
            _change(node["zone"], node["zone_after"]),
            _change(f"{node['weight']:g}", f"{node['weight_after']:g}"),
            _change(str(node["owned"]), str(node["owned_after"])),
            ", ".join(notes),
        )
    console.print(table)
    for sentence in plan["warnings"]:
        console.print(Text(f"note: {sentence}", style="yellow"))
    for sentence in plan["objections"]:
        console.print(Text(f"refused: {sentence}", style="red"))


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"
