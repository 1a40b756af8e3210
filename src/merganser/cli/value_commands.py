"""Commands on keys and values, and on the tables that hold them."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from merganser.cli import operations
from merganser.cli.negative_numbers import NumbersCommand
from merganser.cli.options import ADMIN_DEFAULT, AdminOption, JsonOption

values = typer.Typer()
"""Its commands are those of merganser itself."""
tables = typer.Typer(help="Tables of keys and values, whose conflicting writes are kept.", no_args_is_help=True)

TableArgument = Annotated[str, typer.Argument(metavar="TABLE", help="Made with merganser table create.")]
KeyArgument = Annotated[str, typer.Argument(metavar="KEY")]
ValueArgument = Annotated[str, typer.Argument(metavar="VALUE", help="- reads it from standard input.")]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context",
        metavar="CONTEXT|@FILE|-",
        help="As get, put or delete printed it; or where that, or what get --json printed, can be read.",
    ),
]
ConsistencyOption = Annotated[
    str, typer.Option("--consistency", help="ONE, QUORUM, ALL and so on, or numbers: w=2,pw=1 or r=2,pr=1.")
]
ConditionOption = Annotated[
    str | None,
    typer.Option("--if", help="not_modified: only if the context has seen all there is; none_match: if there is none."),
]
QUORUM = "QUORUM"


@tables.command("create")
def table_create(
    table: Annotated[str, typer.Argument(metavar="TABLE")],
    replicas: Annotated[
        str, typer.Option(help="Of each key: a number, or one for each data centre, such as eu=3,us=2.")
    ] = "3",
    data_centers: Annotated[
        str, typer.Option("--data-centers", help="That replicas may be in, if it is not said how many in which [all].")
    ] = "",
    zones: Annotated[str, typer.Option(help="That anything of the table may be in, such as a,b [all].")] = "",
    conflicts: Annotated[
        str,
        typer.Option(
            help="siblings: conflicting values stand side by side; lww: the last write wins; crdt: they merge."
        ),
    ] = "siblings",
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Make a table of keys and values."""
    from merganser.cli import values as on_values

    on_values.create(admin, table, replicas=replicas, data_centers=data_centers, zones=zones, conflicts=conflicts)


@operations.command(tables, "policy")
def table_policy(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Of any front door.")],
    replicas: Annotated[
        str | None,
        typer.Option(help="Of each key: a number, or one for each data centre, such as eu=3,us=2; not said: as now."),
    ] = None,
    data_centers: Annotated[
        str | None,
        typer.Option("--data-centers", help="That replicas may be in, if it is not said how many in which; likewise."),
    ] = None,
    zones: Annotated[
        str | None, typer.Option(help='That anything of the table may be in, such as a,b; "" for all; likewise.')
    ] = None,
    wire: Annotated[
        str, typer.Option(help="Front door, if tables of several have that name: dynamodb or values.")
    ] = "",
) -> operations.Wanted:
    """Have another number of replicas of a table, or have them elsewhere: they move while it is served.

    What is not allowed any more is removed where it was. How conflicts are kept stays as the table was made.
    """
    said = {"replicas": replicas, "data_centers": data_centers, "zones": zones}
    policy = {name: text for name, text in said.items() if text is not None}
    return {"kind": "policy", "table": table, "wire": wire, "policy": policy}


@tables.command("list")
def table_list(admin: AdminOption = ADMIN_DEFAULT, json: JsonOption = False) -> None:
    """List such tables."""
    from merganser.cli import values as on_values

    on_values.list_tables(admin, as_json=json)


@tables.command("drop")
def table_drop(table: TableArgument, admin: AdminOption = ADMIN_DEFAULT) -> None:
    """Drop such a table, and all it holds."""
    from merganser.cli import values as on_values

    on_values.drop(admin, table)


@values.command(cls=NumbersCommand)
def get(
    table: TableArgument,
    key: KeyArgument,
    consistency: ConsistencyOption = QUORUM,
    admin: AdminOption = ADMIN_DEFAULT,
    json: JsonOption = False,
    raw: Annotated[bool, typer.Option("--raw", help="Exactly the bytes of the one value, and nothing else.")] = False,
) -> None:
    """Print the value of a key, or all its siblings, with who wrote them when; exit status 1 if there is none."""
    from merganser.cli import values as on_values

    if not on_values.get(admin, table, key, consistency=consistency, as_json=json, is_raw=raw):
        raise typer.Exit(1)


@values.command()
def keys(
    table: TableArgument,
    prefix: Annotated[str, typer.Option(help="Only those that begin so.")] = "",
    consistency: ConsistencyOption = QUORUM,
    admin: AdminOption = ADMIN_DEFAULT,
    json: JsonOption = False,
) -> None:
    """List the keys of a table, one a line, in the order of the ring.

    A key that cannot be printed on a line as it is, is quoted as shells do it: $'two\\nlines'.
    """
    from merganser.cli import values as on_values

    on_values.list_keys(admin, table, prefix=prefix, consistency=consistency, as_json=json)


@values.command(cls=NumbersCommand)
def find(
    table: TableArgument,
    tag: Annotated[str, typer.Argument(metavar="TAG", help="Name of a tag.")],
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", help="Of the tag [any].")] = None,
    low: Annotated[str | None, typer.Option("--from", help="The least value.")] = None,
    high: Annotated[str | None, typer.Option("--to", help="The greatest value.")] = None,
    integer: Annotated[bool, typer.Option("--int", help="Values are integers, put with --tag-int.")] = False,
    consistency: ConsistencyOption = QUORUM,
    admin: AdminOption = ADMIN_DEFAULT,
    json: JsonOption = False,
) -> None:
    """List the keys whose values have a tag, in the order of the tag, and its value before each."""
    from merganser.cli import values as on_values

    on_values.find(
        admin,
        table,
        tag,
        value=value,
        low=low,
        high=high,
        is_integer=integer,
        consistency=consistency,
        as_json=json,
    )


@values.command(cls=NumbersCommand)
def put(
    table: TableArgument,
    key: KeyArgument,
    value: ValueArgument,
    context: ContextOption = None,
    ttl: Annotated[int | None, typer.Option(min=1, help="Seconds until it is gone [never].")] = None,
    content_type: Annotated[str | None, typer.Option(help="As HTTP has it.")] = None,
    meta: Annotated[list[str] | None, typer.Option(metavar="NAME=TEXT", help="Kept with the value; repeat.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=TEXT", help="To be found by; repeat.")] = None,
    tag_int: Annotated[list[str] | None, typer.Option(metavar="NAME=NUMBER", help="Likewise.")] = None,
    client: Annotated[str | None, typer.Option(help="Who puts it.")] = None,
    only_if: ConditionOption = None,
    consistency: ConsistencyOption = QUORUM,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Put a value in the place of what the context has seen, and print the next context.

    Without a context it replaces nothing, and stands beside what is there; in a table where the last write wins, it
    takes the place of everything.
    """
    from merganser.cli import values as on_values
    from merganser.cli.contexts import context_of

    said = on_values.about(
        content_type=content_type, client=client, metadata=meta or [], tags=tag or [], integer_tags=tag_int or []
    )
    options = {
        "context": context_of(context, value=value),
        "ttl_s": None if ttl is None else str(ttl),
        "if": only_if,
        **said,
    }
    on_values.put(admin, table, key, _value(value), consistency=consistency, **options)


@values.command(cls=NumbersCommand)
def delete(
    table: TableArgument,
    key: KeyArgument,
    context: ContextOption = None,
    only_if: ConditionOption = None,
    consistency: ConsistencyOption = QUORUM,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Delete what the context has seen, or, without one, all that is there now."""
    from merganser.cli import values as on_values
    from merganser.cli.contexts import context_of

    on_values.delete(admin, table, key, context=context_of(context), condition=only_if, consistency=consistency)


@values.command(cls=NumbersCommand)
def update(
    table: TableArgument,
    key: KeyArgument,
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="counter, set, register, flag, distinct, max ...")],
    action: Annotated[str, typer.Argument(metavar="ACTION", help="increment, add, remove, assign, reset ...")],
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", help="A number, or text.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="Of a map; again for one in that [the key itself].")] = None,
    identity: Annotated[
        str | None, typer.Option("--id", help="SESSION:1, then SESSION:2 ...: made once, however often it is sent.")
    ] = None,
    context: ContextOption = None,
    consistency: ConsistencyOption = QUORUM,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Change a value that merges itself, in a table made with --conflicts crdt.

    What removes or replaces something does so with what the context has seen; without one, with all that is there now.
    """
    from merganser.cli import crdts
    from merganser.cli import values as on_values
    from merganser.cli.contexts import context_of

    seen = context_of(context)
    path = [on_values.as_json(name) for name in field or ()]
    operation = {"type": kind, "action": action, "value": crdts.typed(kind, action, value), "path": path}
    crdts.update(admin, table, key, operation, identity=identity, context=seen, consistency=consistency)


@values.command()
def session(
    table: TableArgument,
    life: Annotated[int, typer.Option(min=1, max=86_400, help="Seconds.")] = 3600,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Open a session, to number updates under, so that each is made once: see update --id."""
    from merganser.cli import crdts

    crdts.session(admin, table, life_s=life)


@values.command(cls=NumbersCommand)
def resolve(
    table: TableArgument,
    key: KeyArgument,
    value: ValueArgument,
    context: ContextOption = None,
    consistency: ConsistencyOption = QUORUM,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Put one value in the place of the siblings that the context has seen, or, without one, of all there are now."""
    from merganser.cli import values as on_values
    from merganser.cli.contexts import context_of

    seen = context_of(context, value=value)
    on_values.resolve(admin, table, key, _value(value), context=seen, consistency=consistency)


@values.command()
def advise(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="One without leaders, that is written to.")],
    n: Annotated[int | None, typer.Option("--n", min=1, max=16, help="Replicas of each key [as it has].")] = None,
    r: Annotated[int | None, typer.Option("--r", min=1, max=16, help="Replicas that are read [each number].")] = None,
    w: Annotated[int | None, typer.Option("--w", min=1, max=16, help="Acks of a write [each number].")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw how fast writes become visible.")] = False,
    admin: AdminOption = ADMIN_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Tell how stale reads of a table are, and would be with other numbers, by what its nodes have measured."""
    from merganser.cli.advise import advise as advise_on

    advise_on(admin, table, n=n, r=r, w=w, is_plotted=plot, as_json=json)


def _value(given: str) -> bytes:
    return sys.stdin.buffer.read() if given == "-" else given.encode(errors="surrogateescape")
