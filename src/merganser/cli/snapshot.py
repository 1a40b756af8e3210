"""``merganser snapshot``: copies of a whole cluster, made, looked at and restored."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from merganser.model.errors import ConfigurationError

snapshot = typer.Typer(help="Snapshots of a whole cluster.", no_args_is_help=True)

RepositoryArgument = Annotated[
    str, typer.Argument(metavar="REPOSITORY", help="A directory, or s3://BUCKET/PREFIX (merganser[s3]).")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Of the snapshot.")]
AdminOption = Annotated[
    str, typer.Option("--admin", help="HOST:PORT of any node's admin port.", envvar="MERGANSER_ADMIN")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WithoutOption = Annotated[
    list[int] | None, typer.Option("--without", help="Number of a node whose checkpoint is left out; repeat.")
]
RateOption = Annotated[float, typer.Option("--rate", min=0.1, help="MiB a second, all nodes together.")]
ADMIN_DEFAULT = "127.0.0.1:7800"
RATE_DEFAULT = 32.0  # a tenth of what an ordinary disk reads


@snapshot.command("create")
def create(
    repository: RepositoryArgument,
    name: Annotated[str | None, typer.Option(help="Of the snapshot [the time, as 20261126T211200Z].")] = None,
    rate: RateOption = RATE_DEFAULT,
    admin: AdminOption = ADMIN_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Copy the cluster: all that was acknowledged before, as of the moment the checkpoints were taken.

    Files that the repository has already are not sent again. Run again after it was stopped, it sends the rest.
    """
    from merganser.cli.snapshot_create import create as create_snapshot
    from merganser.cli.snapshot_nodes import Pace
    from merganser.cli.snapshot_tell import tell_created
    from merganser.storage.object_store import opened
    from merganser.storage.repository import Repository

    store = Repository(opened(repository, is_new_fine=True))
    chosen = name or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    with _stopping(), _bar(is_quiet=json) as progress:
        manifest, sent = create_snapshot(admin, store, chosen, pace=Pace(rate), progress=progress)
    tell_created(manifest, sent, as_json=json)


@snapshot.command("list")
def list_(repository: RepositoryArgument, json: JsonOption = False) -> None:
    """List the snapshots of a repository."""
    from merganser.cli.snapshot_tell import tell_all
    from merganser.storage.object_store import opened
    from merganser.storage.repository import Repository

    tell_all(Repository(opened(repository, is_new_fine=False)), as_json=json)


@snapshot.command("verify")
def verify(
    repository: RepositoryArgument,
    name: NameArgument,
    files_only: Annotated[bool, typer.Option("--files-only", help="Do not look at rows.")] = False,
    without: WithoutOption = None,
    scratch: Annotated[Path | None, typer.Option(help="Directory for files of a bucket [a temporary one].")] = None,
    json: JsonOption = False,
) -> None:
    """Compare every file with its checksum, and every row; exit status 1 if anything is damaged.

    A damaged file is set aside (damaged/), so that the next snapshot sends it again.
    """
    from merganser.cli.snapshot_files import damaged_files, gone_through, laid_out
    from merganser.cli.snapshot_files import without as left_out
    from merganser.cli.snapshot_tell import tell_verified
    from merganser.core.snapshots import is_hidden
    from merganser.storage.object_store import opened
    from merganser.storage.repository import Repository

    store = Repository(opened(repository, is_new_fine=False))
    manifest = left_out(store.manifest(name)[0], without or [])
    with _stopping(), _scratch(scratch, name) as directory, _bar(is_quiet=json) as progress:
        problems, found = damaged_files(manifest, store, progress), []
        if not problems and not files_only:
            tables = [table for table in manifest.map.tables if not is_hidden(table)]
            with laid_out(manifest, store, directory, progress) as copies:
                found = gone_through(copies, tables, progress)
    if not tell_verified(manifest, problems, found, as_json=json):
        raise typer.Exit(1)


@snapshot.command("restore")
def restore(
    repository: RepositoryArgument,
    name: NameArgument,
    table: Annotated[list[str] | None, typer.Option("--table", help="One table; repeat [all].")] = None,
    prefix: Annotated[str, typer.Option(help="Goes before the names of the restored tables.")] = "",
    without: WithoutOption = None,
    scratch: Annotated[
        Path | None,
        typer.Option(help="Directory for files of a bucket, and for how far it is [a temporary one, begun anew]."),
    ] = None,
    rate: RateOption = RATE_DEFAULT,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Compare all, tell what would be restored; the cluster stays as it is."),
    ] = False,
    admin: AdminOption = ADMIN_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Bring the tables of a snapshot into a running cluster, of whatever size; clients see them when all are whole.

    Run again after it was stopped, it goes on.
    """
    from merganser.cli.snapshot_files import without as left_out
    from merganser.cli.snapshot_nodes import Pace
    from merganser.cli.snapshot_restore import restore as restore_snapshot
    from merganser.cli.snapshot_tell import tell_restored
    from merganser.storage.object_store import opened
    from merganser.storage.repository import Repository

    store = Repository(opened(repository, is_new_fine=False))
    manifest, checksum = store.manifest(name)
    _check_prefix(prefix)
    with _stopping(), _scratch(scratch, name) as directory, _bar(is_quiet=json) as progress:
        restored = restore_snapshot(
            admin,
            store,
            left_out(manifest, without or []),
            checksum,
            tables=table or [],
            prefix=prefix,
            scratch=directory,
            pace=Pace(rate),
            progress=progress,
            is_dry_run=dry_run,
        )
    tell_restored(restored, is_dry_run=dry_run, as_json=json)


@snapshot.command("delete")
def delete(
    repository: RepositoryArgument,
    name: NameArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Though another snapshot seems to be being made: its command was killed.")
    ] = False,
) -> None:
    """Delete a snapshot, and the files that no other one needs."""
    from merganser.storage.object_store import opened
    from merganser.storage.repository import Repository

    store = Repository(opened(repository, is_new_fine=False))
    if name not in store.names():
        store.manifest(name)  # says which there are
    with _stopping(), _bar(is_quiet=False) as progress:
        files = store.delete(
            name, is_forced=force, progress=lambda done, total: progress("removing files", done, total)
        )
    typer.echo(f"snapshot {name} is deleted, and {files} files that no other one needs")


def _check_prefix(prefix: str) -> None:
    if not all(sign.isascii() and (sign.isalnum() or sign in "._-") for sign in prefix):
        raise ConfigurationError(f"--prefix has letters, digits, '.', '_' and '-' only, not {prefix[:40]!r}")


@contextlib.contextmanager
def _scratch(given: Path | None, name: str) -> Iterator[Path]:
    if given is not None:
        yield given / name
        return
    with tempfile.TemporaryDirectory(prefix="merganser-snapshot-") as made:
        yield Path(made)


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _bar(*, is_quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=is_quiet or not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield progress
