"""Commands that change who is a member and who holds what: plan, ask, begin, and watch until it is done."""

from __future__ import annotations

from typing import Annotated

import typer

operations = typer.Typer()
"""Its commands are those of merganser itself."""

NodesArgument = Annotated[
    list[str], typer.Argument(metavar="NODE...", help="Id, number, or peer or admin address of a member.")
]
NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="Id, number, or peer or admin address of a member.")]
WeightOption = Annotated[float, typer.Option(help="Share of the ring, in relation to the others' weights.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Begin it, and do not wait for its end.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Whatever speaks against it.")]
AdminOption = Annotated[
    str, typer.Option("--admin", help="HOST:PORT of any node's admin port.", envvar="MERGANSER_ADMIN")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ADMIN_DEFAULT = "127.0.0.1:7800"


@operations.command("join")
def join(
    nodes: NodesArgument,
    weight: WeightOption = 1.0,
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Give nodes that were started with --join their share of the ring."""
    wanted: dict[str, object] = {"kind": "join", "nodes": nodes, "weight": weight}
    _operate(admin, wanted, yes=yes, detach=detach, dry_run=dry_run, force=force)


@operations.command("leave")
def leave(
    nodes: NodesArgument,
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Have nodes hand over what they hold, and end."""
    _operate(admin, {"kind": "leave", "nodes": nodes}, yes=yes, detach=detach, dry_run=dry_run, force=force)


@operations.command("remove")
def remove(
    nodes: NodesArgument,
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Go on without nodes that are lost for good: the others make new copies of what they held."""
    _operate(admin, {"kind": "remove", "nodes": nodes}, yes=yes, detach=detach, dry_run=dry_run, force=force)


@operations.command("replace")
def replace(
    node: Annotated[str, typer.Argument(metavar="DEAD", help="A member that is lost for good.")],
    by: Annotated[str, typer.Option(help="A node that was started with --join, and owns nothing yet.")],
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Put a new node in the place of one that is lost for good; nothing else moves."""
    wanted: dict[str, object] = {"kind": "replace", "nodes": [node], "by": by}
    _operate(admin, wanted, yes=yes, detach=detach, dry_run=dry_run, force=force)


@operations.command("move")
def move(
    node: NodeArgument,
    weight: WeightOption,
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Have a node own more or less of the ring; 0: nothing, and it stays a member."""
    wanted: dict[str, object] = {"kind": "weights", "nodes": [node], "weight": weight}
    _operate(admin, wanted, yes=yes, detach=detach, dry_run=dry_run, force=force)


@operations.command("rebalance")
def rebalance(
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Have each node own what its weight says, and replicas in as many zones as there are."""
    _operate(admin, {"kind": "rebalance"}, yes=yes, detach=detach, dry_run=dry_run, force=force)


@operations.command("split")
def split(
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Cut each partition of the ring in two, so that more nodes can share it evenly; nothing moves. For good."""
    _operate(admin, {"kind": "split"}, yes=yes, detach=detach, dry_run=dry_run, force=force)


@operations.command("zones")
def zones(
    pairs: Annotated[list[str], typer.Argument(metavar="NODE=ZONE...")],
    yes: YesOption = False,
    detach: DetachOption = False,
    dry_run: DryRunOption = False,
    force: ForceOption = False,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Tell the cluster that nodes stand in other zones, and move what that takes."""
    from merganser.model.errors import ConfigurationError

    parts = [pair.partition("=") for pair in pairs]
    wrong = [pair for pair, (node, separator, _) in zip(pairs, parts, strict=True) if not (node and separator)]
    if wrong:
        raise ConfigurationError(f"{wrong[0]!r} is not NODE=ZONE: say which node is in which zone, as in 4=rack-2")
    wanted: dict[str, object] = {"kind": "zones", "zones": {node: zone for node, _, zone in parts}}
    _operate(admin, wanted, yes=yes, detach=detach, dry_run=dry_run, force=force)


@operations.command("operation")
def operation(
    cancel: Annotated[bool, typer.Option("--cancel", help="Give it up; what has changed hands stays so.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch it until it is done.")] = False,
    admin: AdminOption = ADMIN_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Show what changes who holds what, how far it is, and what it waits for."""
    from merganser.cli import operating

    if cancel:
        operating.cancel(admin)
    elif wait:
        _end(operating.watch_running(admin))
    else:
        operating.show(admin, as_json=json)


def _operate(admin: str, wanted: dict[str, object], *, yes: bool, detach: bool, dry_run: bool, force: bool) -> None:
    from merganser.cli import operating

    _end(operating.operate(admin, {**wanted, "forced": force}, asks=not yes, is_detached=detach, is_dry_run=dry_run))


def _end(is_done: bool) -> None:
    if not is_done:
        raise typer.Exit(1)
