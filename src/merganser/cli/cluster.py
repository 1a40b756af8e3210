"""``merganser cluster start``: several nodes on this machine, in the foreground."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster

WATCH_S = 0.2


def run_cluster(
    *, nodes: int, data: Path | None, host: str, dynamodb_port: int, peer_port: int, admin_port: int
) -> None:
    """Start the nodes, print where they are, and keep them until ctrl-C or SIGTERM.

    Raises:
        ConfigurationError: a node cannot start, or ended by itself.
    """
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _directory(data) as directory:
        cluster = LocalCluster(
            directory,
            nodes=nodes,
            host=host,
            dynamodb_port=dynamodb_port,
            peer_port=peer_port,
            admin_port=admin_port,
            zones=[f"zone-{i + 1}" for i in range(nodes)],
        )
        with contextlib.suppress(KeyboardInterrupt), cluster:
            console.print(_endpoints(cluster))
            kept = f"data in {directory}" if data else "data is removed at the end (--data DIR keeps it)"
            console.print(f"{kept}; logs in {directory}/node-*/node.log; ctrl-C stops the cluster")
            _watch(cluster)
    console.print("stopped")


def _watch(cluster: LocalCluster) -> None:
    while all(node.pid is not None for node in cluster.nodes):
        time.sleep(WATCH_S)
    ended = [str(node.log) for node in cluster.nodes if node.pid is None]
    raise ConfigurationError(f"a node ended by itself: see {', '.join(ended)}")


def _endpoints(cluster: LocalCluster) -> Table:
    table = Table(title="Merganser cluster")
    for column in ("node", "DynamoDB endpoint", "admin", "peers", "process"):
        table.add_column(column)
    for number, node in enumerate(cluster.nodes, start=1):
        table.add_row(str(number), node.dynamodb_url, node.addresses["admin"], node.addresses["peers"], str(node.pid))
    return table


@contextlib.contextmanager
def _directory(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="merganser-") as temporary:
        yield Path(temporary)
