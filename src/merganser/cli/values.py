"""``merganser table``, ``get``, ``put``, ``delete`` and ``resolve``: key-value tables, whose conflicts can be seen."""

from __future__ import annotations

import base64
import datetime
import re
import sys
from typing import Any
from urllib.parse import quote

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from merganser.cli.admin_port import post, print_json
from merganser.cli.lines import on_a_line
from merganser.model.contents import INTEGER_MAX, INTEGER_MIN
from merganser.model.errors import ConfigurationError

HEADER = "x-merganser-admin"
TIMEOUT_S = 15.0
CONTEXT_BYTES_MAX = 16 * 1024
"""In a query: a request line and its headers may be four times as long. Nodes of all builds take that, and a longer one
only those that know ``context_bytes``; those before them refuse it."""

Values = list[dict[str, Any]]


def create(admin: str, table: str, *, replicas: str, data_centers: str = "", zones: str = "", conflicts: str) -> None:
    """Make a table.

    Raises:
        ConfigurationError: it was not made; says why.
    """
    given = {"replicas": replicas, "data_centers": data_centers, "zones": zones, "conflicts": conflicts}
    made = ask(admin, "create", {"table": table, **{name: text for name, text in given.items() if text}})
    where = f" ({made['policy']})" if made["policy"] else ""
    print(f"table {made['table']}, {made['n']} replicas of each key{where}")  # noqa: T201  # a command line speaks


def list_tables(admin: str, *, as_json: bool) -> None:
    """Print all tables, page by page, in the order of their names; raises as `create`."""
    start: str | None = None
    while True:
        page = ask(admin, "tables", {"from": start})
        for table in page["tables"]:
            told = f"{table['table']}  n={table['n']}  {table['conflicts']}"
            print(orjson.dumps(table).decode() if as_json else told)  # noqa: T201
        start = page["from"]
        if start is None:
            return


def drop(admin: str, table: str) -> None:
    """Drop a table and all it holds; raises as `create`."""
    ask(admin, "drop", {"table": table})


def get(admin: str, table: str, key: str, *, consistency: str, as_json: bool, is_raw: bool) -> bool:
    """Print the values of a key; false if there are none.

    A single value is printed, and a newline if it is text; several stand side by side, with who wrote them when. Raw,
    it is the bytes of a single value and nothing else.

    Raises:
        ConfigurationError: as `create`; or there is no single value to be printed raw.
    """
    if as_json and is_raw:
        raise ConfigurationError("--json and --raw exclude each other")
    found = ask(admin, "get", {"table": table, "key": key, "consistency": consistency})
    values: Values = found["values"]
    if is_raw:
        sys.stdout.buffer.write(_single(table, key, values))
        sys.stdout.flush()
    elif as_json:
        print_json(found)
    elif values and "type" in values[0]:
        from merganser.cli.crdts import print_plain

        print_plain(values)
    elif len(values) == 1:
        is_line = "text" in values[0] or sys.stdout.isatty()
        sys.stdout.buffer.write(bytes_of(values[0]) + b"\n" * is_line)
        sys.stdout.flush()
    elif values:
        Console().print(_side_by_side(values))
        seen = f"--context {found['context']}" if len(found["context"]) <= CONTEXT_BYTES_MAX else "--context @FILE"
        print(f'{len(values)} siblings: merganser resolve {table} {key} "what they come to" {seen}')  # noqa: T201
        if seen.endswith("@FILE"):
            print("its context is too long for a command: it is in FILE after get --json > FILE")  # noqa: T201
    return bool(values)


def _single(table: str, key: str, values: Values) -> bytes:
    if any("type" in value for value in values):
        raise ConfigurationError(f"what {table} has merges itself, and has no bytes to be printed: leave out --raw")
    if len(values) > 1:
        raise ConfigurationError(
            f"{key} has {len(values)} siblings: get them with --json, or merganser resolve {table}"
        )
    return bytes_of(values[0]) if values else b""


def list_keys(admin: str, table: str, *, prefix: str, consistency: str, as_json: bool) -> None:
    """Print all keys that begin with ``prefix``, in the order of the ring; raises as `create`.

    A page is asked for when the one before is printed, so whoever reads slowly makes nobody hold more than one.
    """
    start: str | None = None
    while True:
        page = ask(admin, "keys", {"table": table, "prefix": prefix, "from": start, "consistency": consistency})
        for key in page["keys"]:
            if as_json:
                print(orjson.dumps(key).decode())  # noqa: T201
            else:
                print(on_a_line(bytes_of(key)))  # noqa: T201
        start = page["from"]
        if start is None:
            return


def find(
    admin: str,
    table: str,
    tag: str,
    *,
    value: str | None,
    low: str | None,
    high: str | None,
    is_integer: bool,
    consistency: str,
    as_json: bool,
) -> None:
    """Print the keys whose values have a tag, in its order, with the tag's value; raises as `create`."""

    def told(bound: str | None) -> str | None:
        return None if bound is None else orjson.dumps(_integer(bound) if is_integer else bound).decode()

    query = {"table": table, "tag": tag, "value": told(value), "low": told(low), "high": told(high)}
    query |= {"integer": "true" if is_integer else None, "consistency": consistency}
    start: str | None = None
    while True:
        page = ask(admin, "find", {**query, "from": start})
        for one in page["found"]:
            tag = one["value"]
            shown = tag if isinstance(tag, int) else on_a_line(tag.encode() if isinstance(tag, str) else bytes_of(tag))
            key = on_a_line(bytes_of(one["key"]))
            print(orjson.dumps(one).decode() if as_json else f"{shown}\t{key}")  # noqa: T201
        start = page["from"]
        if start is None:
            return


def put(admin: str, table: str, key: str, value: bytes, **options: str | None) -> None:
    """Put a value, and print the context to put with next; raises as `create`."""
    print(_change(admin, "put", {"table": table, "key": key, **options}, value))  # noqa: T201


def delete(admin: str, table: str, key: str, *, context: str | None, condition: str | None, consistency: str) -> None:
    """Delete what ``context`` has seen, or, without one, all that is read now; raises as `create`."""
    found = ask(admin, "get", {"table": table, "key": key, "consistency": consistency})
    if found["values"] and "type" in found["values"][0]:
        ask(admin, "delete", {"table": table, "key": key, "context": context, "consistency": consistency})
        return
    seen = str(found["context"]) if context is None else context
    query = {"table": table, "key": key, "context": seen, "if": condition, "consistency": consistency}
    print(_change(admin, "delete", query))  # noqa: T201


def about(
    *, content_type: str | None, client: str | None, metadata: list[str], tags: list[str], integer_tags: list[str]
) -> dict[str, str | None]:
    """Return what is to be said about a value, as the admin port takes it.

    Args:
        content_type: of the value.
        client: who puts it.
        metadata: NAME=TEXT each.
        tags: NAME=TEXT each.
        integer_tags: NAME=NUMBER each.

    Raises:
        ConfigurationError: one is not so.
    """
    told = [*map(_pair, tags), *((name, _integer(text)) for name, text in map(_pair, integer_tags))]
    return {
        "content_type": content_type,
        "client": client,
        "metadata": orjson.dumps(dict(map(_pair, metadata))).decode() if metadata else None,
        "tags": orjson.dumps(told).decode() if told else None,
    }


def _pair(given: str) -> tuple[str, str]:
    name, is_there, text = given.partition("=")
    if not name or not is_there:
        raise ConfigurationError(f"write NAME=VALUE, not {given!r}")
    if not _is_text(given):
        raise ConfigurationError(f"what is said about a value is UTF-8, and {given!r} is not")
    return name, text


def _is_text(argument: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in argument)


def as_json(argument: str) -> object:
    """Return what was typed as the admin port takes it in JSON."""
    return argument if _is_text(argument) else {"base64": base64.b64encode(typed(argument)).decode()}


def _integer(text: str) -> int:
    number = whole_number(text)
    if number is None:
        raise ConfigurationError(f"write NAME=NUMBER, not {text!r:.80}")
    return number


def whole_number(text: str) -> int | None:
    """Return the number that ``text`` is, None if it is none; raises a ConfigurationError if it has over 64 bits."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        return None
    if len(text) > 4000 or not INTEGER_MIN <= int(text) <= INTEGER_MAX:
        raise ConfigurationError(
            f"{text:.40} is no number of 64 bits: they go from {INTEGER_MIN} to {INTEGER_MAX}; nothing was sent"
        )
    return int(text)


def resolve(admin: str, table: str, key: str, value: bytes, *, context: str | None, consistency: str) -> None:
    """Put one value in the place of the siblings that ``context`` has seen, None: that are read; raises as `create`."""
    seen = _context_now(admin, table, key, consistency) if context is None else context
    put(admin, table, key, value, context=seen, consistency=consistency)


def _context_now(admin: str, table: str, key: str, consistency: str) -> str:
    return str(ask(admin, "get", {"table": table, "key": key, "consistency": consistency})["context"])


def _change(admin: str, action: str, query: dict[str, str | None], content: bytes = b"") -> str:
    return str(ask(admin, action, query, content)["context"])


def ask(admin: str, action: str, query: dict[str, str | None] | dict[str, str], content: bytes = b"") -> dict[str, Any]:
    """Have a node do something with a table; raises as `create`."""
    context = query.get("context") or ""
    if len(context) > CONTEXT_BYTES_MAX:
        before = context.encode()
        query = {name: value for name, value in query.items() if name != "context"}
        query |= {"context_bytes": str(len(before))}
        content = before + content
    told = "&".join(f"{name}={quote(typed(value), safe='')}" for name, value in query.items() if value is not None)
    return post(admin, f"/values/{action}?{told}", header=HEADER, timeout_s=TIMEOUT_S, content=content)


def _side_by_side(values: Values) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    for number, value in enumerate(values, start=1):
        written_at = datetime.datetime.fromtimestamp(value["written_at_us"] / 1e6, datetime.UTC)
        writer = f"node {value['by_node']}" + (f", client {value['by_client']}" if "by_client" in value else "")
        heading = Text(f"{number}: {writer}, {written_at:%Y-%m-%d %H:%M:%S.%f} UTC")
        table.add_column(heading, overflow="fold")
    table.add_row(*(Text(bytes_of(value).decode(errors="backslashreplace")) for value in values))
    if any(_said(value) for value in values):
        table.add_row(*(Text(_said(value), style="dim") for value in values))
    return table


def _said(value: dict[str, Any]) -> str:
    said = [value[name] for name in ("content_type",) if name in value]
    said += [f"{name}: {text}" for name, text in value.get("metadata", {}).items()]
    said += [f"#{name}={tag if isinstance(tag, int | str) else tag['base64']}" for name, tag in value.get("tags", [])]
    if "expires_at_s" in value:
        gone_at = datetime.datetime.fromtimestamp(value["expires_at_s"], datetime.UTC)
        said.append(f"until {gone_at:%Y-%m-%d %H:%M:%S} UTC")
    return "\n".join(said)


def typed(argument: str) -> bytes:
    """Return the bytes that were typed, whether they are UTF-8 or not."""
    return argument.encode(errors="surrogateescape")


def bytes_of(value: dict[str, Any]) -> bytes:
    """Return a value, or a key, as the admin port tells it."""
    return value["text"].encode() if "text" in value else base64.b64decode(value["base64"])
