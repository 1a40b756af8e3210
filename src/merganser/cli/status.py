"""``merganser status`` and ``merganser ring``: what the admin ports tell, for people and for scripts."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from merganser.cli.admin_port import fetch, print_json
from merganser.model.errors import ConfigurationError

_BELIEF_STYLES = {"alive": "green", "suspect": "yellow", "dead": "red"}
_COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red", "white")


def show_status(admin: str, *, as_json: bool) -> None:
    """Print every node of the cluster that ``admin`` belongs to.

    Raises:
        ConfigurationError: nobody answers there.
    """
    ring = fetch(admin, "/ring")
    nodes = [_node_status(node) for node in ring["nodes"]]
    if as_json:
        print_json({"cluster": ring["cluster"], "epoch": ring["epoch"], "nodes": nodes})
        return
    console = Console()
    console.print(_headline(ring), highlight=False)
    table = _table("node", "state", *_where(ring), "DynamoDB", "peers", "partitions", "epoch", "tables")
    for known, node in zip(ring["nodes"], nodes, strict=True):
        table.add_row(
            str(known["number"]),
            Text(node["state"], style="green" if node["state"] == "serving" else "red"),
            *(known[name] for name in _where(ring).values()),
            known["addresses"].get("dynamodb", ""),
            _connected(node),
            str(known["partitions_owned"]),
            str(node.get("epoch", "")),
            str(len(node["tables"])) if "tables" in node else "",
        )
    console.print(table)
    status = fetch(admin, "/status")
    _show_membership(console, status, ring, nodes)
    _show_policies(console, status)
    _show_leaders(console, nodes)
    _show_staleness(console, nodes)
    for known, node in zip(ring["nodes"], nodes, strict=True):
        if node.get("failure"):
            what = "recovers" if node["state"] == "recovering" else "takes no writes"
            console.print(Text(f"node {known['number']} {what}: {node['failure']}", style="red"))
        for stored in node.get("hints", {}).get("stored", ()):
            age = f"the oldest for {stored['oldest_s']} s"
            console.print(f"node {known['number']} keeps {stored['hints']} hints for node {stored['node']}, {age}")


def _where(ring: dict[str, Any]) -> dict[str, str]:
    """Return the columns that tell where a node is, and what they show: of data centres only if there are any."""
    is_named = any(node["data_center"] for node in ring["nodes"])
    return {**({"data centre": "data_center"} if is_named else {}), "zone": "zone"}


def _show_policies(console: Console, status: dict[str, Any]) -> None:
    """Print which tables say where they may be."""
    for table in status["tables"]:
        if table["policy"]:
            console.print(f"table {table['name']} ({table['wire']}) keeps {table['policy']}", highlight=False)


def _show_leaders(console: Console, nodes: list[dict[str, Any]]) -> None:
    """Print how many groups each node leads, and which nodes miss leaders."""
    views = {node["number"]: node["leadership"] for node in nodes if "leadership" in node}
    if any(view["groups_led"] or view["groups_without_leader"] for view in views.values()):
        led = ", ".join(f"node {number}: {view['groups_led']}" for number, view in views.items())
        console.print(f"groups led by {led}", highlight=False)
    for number, view in views.items():
        if view["groups_without_leader"]:
            words = f"node {number} holds {view['groups_without_leader']} groups that nobody leads"
            console.print(Text(words, style="red"))


def _show_staleness(console: Console, nodes: list[dict[str, Any]]) -> None:
    """Print how stale reads of leaderless tables are, as the nodes measure it: the best and the worst of them."""
    views: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        for name, view in node.get("staleness", {}).items():
            views.setdefault(name, []).append(view)
    if not views:
        return
    table = _table("table", "fresh at once", "99 % after", "replicas behind")
    for name in sorted(views):
        fresh = [view["fresh_at_once"] for view in views[name]]
        after_ms = [view["visible_after_ms"]["0.99"] for view in views[name]]
        answers, behind = (sum(view[what] for view in views[name]) for what in ("answers", "answers_behind"))
        table.add_row(
            name,
            f"{min(fresh):.1%}" if len(fresh) == 1 else f"{min(fresh):.1%} to {max(fresh):.1%}",
            "never" if min(after_ms) < 0 else f"{max(after_ms):.1f} ms",
            f"{behind:,} of {answers:,} answers" if answers else "",
        )
    console.print(
        "reads at ONE of what was written at ONE through the same node, as measured (else: merganser advise):",
        highlight=False,
    )
    console.print(table)


def _show_membership(
    console: Console, asked: dict[str, Any], ring: dict[str, Any], nodes: list[dict[str, Any]]
) -> None:
    """Print whom the node that was asked believes alive, how healthy each is, and who sees it otherwise."""
    numbers = {node["id"]: node["number"] for node in ring["nodes"]}
    believed = asked["membership"]["members"]
    table = _table("node", "believed", "for", "incarnation", "accused by", "health", "otherwise")
    for known, node in zip(ring["nodes"], nodes, strict=True):
        its_own = node.get("membership")
        view = believed.get(known["id"])
        table.add_row(
            str(known["number"]),
            Text(view["state"], style=_BELIEF_STYLES[view["state"]]) if view else "itself",
            f"{view['since_s']:.0f} s" if view else "",
            str((view or its_own or {}).get("incarnation", "")),
            " ".join(str(numbers.get(accuser, accuser)) for accuser in view["accusers"]) if view else "",
            f"{its_own['local_health']} of 8" if its_own else "",
            _otherwise(known["id"], view["state"] if view else "alive", nodes),
        )
    console.print(f"membership, as node {asked['number']} sees it (health: 0 is best):", highlight=False)
    console.print(table)


def _otherwise(node: str, state: str, nodes: list[dict[str, Any]]) -> str:
    """Return who believes ``node`` to be in another state."""
    return ", ".join(
        f"{view['state']} to {observer['number']}"
        for observer in nodes
        if (view := observer.get("membership", {}).get("members", {}).get(node)) and view["state"] != state
    )


def show_ring(admin: str, *, as_json: bool) -> None:
    """Print the owner of every partition.

    Raises:
        ConfigurationError: nobody answers there.
    """
    ring = fetch(admin, "/ring")
    if as_json:
        print_json(ring)
        return
    colour = {node["number"]: _COLOURS[i % len(_COLOURS)] for i, node in enumerate(ring["nodes"])}
    table = _table("node", "id", *_where(ring), "peers", "weight", "partitions", "coming", "share", "voter")
    for node in ring["nodes"]:
        table.add_row(
            Text(str(node["number"]), style=colour[node["number"]]),
            node["id"],
            *(node[name] for name in _where(ring).values()),
            node["peer_address"],
            f"{node['weight']:g}",
            str(node["partitions_owned"]),
            str(node["partitions_coming"] or ""),
            f"{node['partitions_owned'] / ring['partitions']:.1%}",
            "yes" if node["is_voter"] else "",
        )
    console = Console()
    console.print(_headline(ring), highlight=False)
    console.print(table)
    console.print("owner of each partition, clockwise from the lowest token:")
    console.print(Text.assemble(*((f"{owner} ", colour[owner]) for owner in ring["owners"])))


def _headline(ring: dict[str, Any]) -> str:
    headline = f"cluster {ring['cluster']}, epoch {ring['epoch']}, {ring['partitions']} partitions"
    return headline if ring["operation"] is None else f"{headline}; under way: {ring['operation']}"


def _table(*columns: str) -> Table:
    """Return a table without lines: with them, eight columns do not fit on 80 characters."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column != "zone", overflow="fold")
    return table


def _node_status(node: dict[str, Any]) -> dict[str, Any]:
    address = node["addresses"].get("admin", "")
    try:
        return fetch(address, "/status")
    except ConfigurationError:
        return {"state": "unreachable", "node": node["id"], "number": node["number"], "addresses": node["addresses"]}


def _connected(node: dict[str, Any]) -> str:
    if "peers" not in node:
        return ""
    return f"{sum(peer['connected'] for peer in node['peers'].values())} of {len(node['peers'])}"
