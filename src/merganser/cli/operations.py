"""Commands that change who is a member and who holds what: plan, ask, begin, and watch until it is done.

Each is a function that returns what is wanted (`node.admin_operations.Wanted`); `command` gives it the options that
all have, and does the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, ParamSpec

import typer

from merganser.cli.options import ADMIN_DEFAULT, AdminOption, JsonOption
from merganser.model.errors import ConfigurationError

operations = typer.Typer()
"""Its commands are those of merganser itself."""

P = ParamSpec("P")
Wanted = dict[str, object]

NodesArgument = Annotated[
    list[str], typer.Argument(metavar="NODE...", help="Id, number, or peer or admin address of a member.")
]
NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="Id, number, or peer or admin address of a member.")]
WeightOption = Annotated[float, typer.Option(help="Share of the ring, in relation to the others' weights.")]


def _common(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Begin it, and do not wait for its end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Whatever speaks against it.")] = False,
    admin: AdminOption = ADMIN_DEFAULT,
) -> Callable[[Wanted], None]:
    """Return what does a thing that is wanted as these options have it."""
    from merganser.cli import operating

    def operate(wanted: Wanted) -> None:
        _end(
            operating.operate(admin, {**wanted, "forced": force}, asks=not yes, is_detached=detach, is_dry_run=dry_run)
        )

    return operate


def command(group: typer.Typer, name: str) -> Callable[[Callable[P, Wanted]], Callable[P, Wanted]]:
    """Make a function that returns what is wanted the command ``name`` of ``group``."""

    def made(wanted: Callable[P, Wanted]) -> Callable[P, Wanted]:
        own, common = (inspect.signature(each, eval_str=True).parameters for each in (wanted, _common))

        def run(**given: object) -> None:
            options = {key: given.pop(key) for key in common}
            operate: Callable[..., Callable[[Wanted], None]] = _common
            asked: Callable[..., Wanted] = wanted
            operate(**options)(asked(**given))

        parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own.values(), *common.values())]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__doc__ = wanted.__doc__
        group.command(name)(run)
        return wanted

    return made


@command(operations, "join")
def join(
    nodes: NodesArgument,
    weight: Annotated[
        float | None, typer.Option(help="Share of the ring, in relation to the others' weights [1].")
    ] = None,
) -> Wanted:
    """Give nodes that were started with --join their share of the ring; again, if that was cancelled on the way."""
    return {"kind": "join", "nodes": nodes, "weight": weight}


@command(operations, "leave")
def leave(nodes: NodesArgument) -> Wanted:
    """Have nodes hand over what they hold, and end."""
    return {"kind": "leave", "nodes": nodes}


@command(operations, "remove")
def remove(nodes: NodesArgument) -> Wanted:
    """Go on without nodes that are lost for good: the others make new copies of what they held."""
    return {"kind": "remove", "nodes": nodes}


@command(operations, "replace")
def replace(
    node: Annotated[str, typer.Argument(metavar="DEAD", help="A member that is lost for good.")],
    by: Annotated[str, typer.Option(help="A node that was started with --join, and owns nothing yet.")],
) -> Wanted:
    """Put a new node in the place of one that is lost for good; nothing else moves."""
    return {"kind": "replace", "nodes": [node], "by": by}


@command(operations, "move")
def move(node: NodeArgument, weight: WeightOption) -> Wanted:
    """Have a node own more or less of the ring; 0: nothing, and it stays a member."""
    return {"kind": "weights", "nodes": [node], "weight": weight}


@command(operations, "rebalance")
def rebalance() -> Wanted:
    """Have each node own what its weight says, and replicas in as many zones as there are."""
    return {"kind": "rebalance"}


@command(operations, "split")
def split() -> Wanted:
    """Cut each partition of the ring in two, so that more nodes can share it evenly; nothing moves. For good."""
    return {"kind": "split"}


@command(operations, "zones")
def zones(pairs: Annotated[list[str], typer.Argument(metavar="NODE=ZONE...")]) -> Wanted:
    """Tell the cluster that nodes stand in other zones, and move what that takes."""
    parts = [pair.partition("=") for pair in pairs]
    wrong = [pair for pair, (node, separator, _) in zip(pairs, parts, strict=True) if not (node and separator)]
    if wrong:
        raise ConfigurationError(f"{wrong[0]!r} is not NODE=ZONE: say which node is in which zone, as in 4=rack-2")
    return {"kind": "zones", "zones": {node: zone for node, _, zone in parts}}


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


def _end(is_done: bool) -> None:
    if not is_done:
        raise typer.Exit(1)
