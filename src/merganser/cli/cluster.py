"""``merganser cluster start``: several nodes on this machine, in the foreground."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import signal
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode

WATCH_S = 0.2


def run_cluster(
    *, nodes: int, data: Path | None, host: str, dynamodb_port: int, peer_port: int, admin_port: int
) -> None:
    """Start the nodes, print where they are, and keep them until ctrl-C or SIGTERM.

    Raises:
        ConfigurationError: a node cannot start, or all have ended.
    """
    console = Console()
    for number in (signal.SIGINT, signal.SIGTERM):  # also when whoever started us ignores ctrl-C
        signal.signal(number, signal.default_int_handler)
    with contextlib.ExitStack() as cleaning:
        directory = data or _temporary(cleaning)
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
            _watch(cluster, console)
            cleaning.pop_all()  # the logs are worth keeping
            raise ConfigurationError(f"every node has ended: see {directory}/node-*/node.log")
    console.print("stopped")


def _watch(cluster: LocalCluster, console: Console) -> None:
    """Say when a node ends; returns when none is left."""
    running = list(enumerate(cluster.nodes, start=1))
    while running:
        for number, node in list(running):
            if node.exit_status is not None:
                running.remove((number, node))
                again = shlex.join(["merganser", "serve", *node.arguments])
                console.print(f"node {number} ended {_cause(node)}; start it again with\n{again}", soft_wrap=True)
        time.sleep(WATCH_S)


def _cause(node: LocalNode) -> str:
    status = node.exit_status or 0
    return f"by signal {-status}" if status < 0 else f"with exit status {status}, see {node.log}"


def _endpoints(cluster: LocalCluster) -> Table:
    table = Table(title="Merganser cluster")
    for column in ("node", "DynamoDB endpoint", "admin", "peers", "process"):
        table.add_column(column)
    for number, node in enumerate(cluster.nodes, start=1):
        table.add_row(str(number), node.dynamodb_url, node.addresses["admin"], node.addresses["peers"], str(node.pid))
    return table


def _temporary(cleaning: contextlib.ExitStack) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="merganser-"))
    cleaning.callback(shutil.rmtree, directory)
    return directory
