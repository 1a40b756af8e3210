"""What the commands about snapshots print."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from rich.console import Console
from rich.table import Table as Printed

from merganser.cli.admin_port import print_json
from merganser.cli.snapshot_create import Sent
from merganser.cli.snapshot_files import Gone
from merganser.cli.snapshot_restore import Restored
from merganser.core.snapshots import clients_tables
from merganser.model.errors import CorruptionError
from merganser.model.snapshot import Manifest
from merganser.service.ledger import WIRE as SYSTEM_WIRE
from merganser.storage.repository import Repository


def tell_created(manifest: Manifest, sent: Sent, *, as_json: bool) -> None:
    """Print what a snapshot has, and what was sent for it."""
    if as_json:
        print_json({**_about(manifest), **msgspec.to_builtins(sent)})
        return
    console = Console(highlight=False)
    console.print(
        f"snapshot {manifest.name}: {len(manifest.copies)} nodes, {_size(manifest.size)} in {sent.files} files, of "
        f"which {sent.files_sent} ({_size(sent.bytes_sent)}) were not there yet",
        markup=False,
        soft_wrap=True,
    )
    for absence in manifest.absent:
        console.print(f"node {absence.number} is not in it: {absence.reason}", style="yellow", markup=False)
    if manifest.absent:
        console.print(
            "what a majority had acknowledged is in it; what fewer had, perhaps not, and a transaction that was just "
            "being applied perhaps in part",
            style="yellow",
            soft_wrap=True,
        )


def tell_all(repository: Repository, *, as_json: bool) -> None:
    """Print which snapshots there are."""
    told, damaged = [], []
    for name in repository.names():
        try:
            told.append(_about(repository.manifest(name)[0]))
        except CorruptionError as error:
            damaged.append({"name": name, "problem": str(error)})
    if as_json:
        print_json({"snapshots": told, "damaged": damaged})
        return
    console = Console(highlight=False)
    table = Printed(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("name", "taken", "nodes", "absent", "tables", "size"):
        table.add_column(column, overflow="fold")
    for one in told:
        figures = (one["nodes"], one["absent"], one["tables"])
        table.add_row(str(one["name"]), str(one["taken"]), *map(str, figures), _size(int(str(one["bytes"]))))
    console.print(table)
    for wrong in damaged:
        console.print(wrong["problem"], style="red", markup=False)


def tell_verified(manifest: Manifest, problems: Sequence[str], found: Sequence[Gone], *, as_json: bool) -> bool:
    """Print what was found; tell whether nothing is damaged."""
    is_well = not problems and not any(gone.counted.damaged for gone in found)
    tables = [{"table": gone.table.name, **msgspec.to_builtins(gone.counted)} for gone in found]
    if as_json:
        print_json({"is_well": is_well, "problems": list(problems), "tables": tables})
        return is_well
    console = Console(highlight=False)
    for problem in problems:
        console.print(problem, style="red", markup=False, soft_wrap=True)
    if found:
        table = Printed(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        for column in ("table", "rows", "deleted", "copies", "damaged"):
            table.add_column(column, overflow="fold")
        for told in tables:
            table.add_row(*(str(told[column]) for column in ("table", "rows", "deleted", "copies", "damaged")))
        console.print(table)
    console.print(
        f"snapshot {manifest.name} is well"
        if is_well
        else f"snapshot {manifest.name} is damaged; the copies of other nodes may make up for it when it is restored"
    )
    return is_well


def tell_restored(restored: Sequence[Restored], *, is_dry_run: bool, as_json: bool) -> None:
    """Print what was, or would be, restored."""
    if as_json:
        print_json({"dry_run": is_dry_run, "tables": msgspec.to_builtins(restored)})
        return
    table = Printed(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("table", "replication", "rows"):
        table.add_column(column, overflow="fold")
    for one in restored:
        table.add_row(one.table, one.replication, str(one.rows))
    console = Console(highlight=False)
    console.print(table)
    if is_dry_run:
        console.print("dry run: nothing was written to the cluster")


def _about(manifest: Manifest) -> dict[str, object]:
    return {
        "name": manifest.name,
        "taken": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(manifest.taken_us / 1e6)),
        "began_us": manifest.began_us,
        "cluster": manifest.map.cluster_id,
        "epoch": manifest.map.epoch,
        "nodes": len(manifest.copies),
        "absent": len(manifest.absent),
        "is_complete": manifest.is_complete,
        "tables": len(clients_tables(manifest.map, systems=(SYSTEM_WIRE,))),
        "bytes": manifest.size,
    }


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
