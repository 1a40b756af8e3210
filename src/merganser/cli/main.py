"""The merganser command. What takes long to import is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from merganser.cli import standard_streams
from merganser.cli.operations import operations
from merganser.cli.options import ADMIN_DEFAULT, AdminOption, JsonOption
from merganser.cli.snapshot import snapshot
from merganser.cli.value_commands import tables, values
from merganser.model.errors import ConfigurationError, CorruptionError

app = typer.Typer(
    help="A Dynamo-style distributed database that unmodified DynamoDB clients talk to.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
cluster = typer.Typer(help="A local cluster of several nodes.", no_args_is_help=True)
app.add_typer(cluster, name="cluster")
app.add_typer(snapshot, name="snapshot")
app.add_typer(tables, name="table")
app.add_typer(values)
app.add_typer(operations)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        import merganser
        from merganser.model.build import BUILD

        typer.echo(f"merganser {merganser.__version__} ({BUILD})")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    data: Annotated[str | None, typer.Option(help="Directory for this node's data, made if absent.")] = None,
    ephemeral: Annotated[bool | None, typer.Option("--ephemeral", help="Keep data in memory only.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    advertise_host: Annotated[
        str | None, typer.Option(help="Host that clients and other nodes are told to use [the address to listen on].")
    ] = None,
    peer_advertise: Annotated[
        str | None, typer.Option(help="HOST:PORT at which other nodes reach this one's peer port, if it is another.")
    ] = None,
    dynamodb_port: Annotated[
        int | None,
        typer.Option("--dynamodb-port", "--port", help="For DynamoDB clients [8000]; 0 picks one, and the others."),
    ] = None,
    peer_port: Annotated[int | None, typer.Option(help="For other nodes [7700].")] = None,
    admin_port: Annotated[int | None, typer.Option(help="For status [7800]; 0 picks one.")] = None,
    zone: Annotated[str | None, typer.Option(help="Failure domain of this node, such as its rack.")] = None,
    data_center: Annotated[
        str | None, typer.Option("--data-center", help="Data centre of this node, for good; zones are parts of one.")
    ] = None,
    machine: Annotated[
        str | None, typer.Option(help="Name of the machine, if several nodes run on it: replicas keep apart.")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(help="Nodes to run behind the one DynamoDB port, one for each core [1].")
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT for peers of each node of a new cluster, as advertised; repeat."),
    ] = None,
    join: Annotated[
        str | None,
        typer.Option(help="HOST:PORT for peers of any member of the cluster that this node joins, instead of seeds."),
    ] = None,
    no_auth: Annotated[bool | None, typer.Option("--no-auth", help="Accept unsigned requests.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any of these settings.", envvar="MERGANSER_CONFIG")
    ] = None,
    disk_reserve_mib: Annotated[
        int | None, typer.Option(help="MiB of the disk to keep free: with less, rows are refused [512].")
    ] = None,
    table_delay_ms: Annotated[
        int | None, typer.Option(help="How long tables stay CREATING, UPDATING and DELETING [0].")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Once: set the database aside, take everything from the other nodes.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Once: go on with what is left of a database that lost something.")
    ] = False,
    process: Annotated[
        int | None, typer.Option(help="With --processes: the one that --rebuild or --accept-loss is for.")
    ] = None,
    print_endpoint: Annotated[
        bool, typer.Option("--print-endpoint", help="Print the URL for DynamoDB clients once they are served.")
    ] = False,
    stop_with_stdin: Annotated[
        bool,
        typer.Option("--stop-with-stdin", help="Stop when standard input ends, as with the process that wrote it."),
    ] = False,
) -> None:
    """Run one node, or one for each core, until told to stop (ctrl-C or SIGTERM).

    Each setting may also stand in the environment (MERGANSER_DYNAMODB_PORT=9000) or in the --config file
    (dynamodb_port = 9000). The command line wins, then the environment, then the file.
    """
    from merganser.node.reloading import Reloading, Sources

    given = {
        "data": data,
        "ephemeral": ephemeral,
        "host": host,
        "advertise_host": advertise_host,
        "peer_advertise": peer_advertise,
        "dynamodb_port": dynamodb_port,
        "peer_port": peer_port,
        "admin_port": admin_port,
        "zone": zone,
        "data_center": data_center,
        "machine": machine,
        "processes": processes,
        "seed": seed or None,
        "join": join,
        "no_auth": no_auth,
        "disk_reserve_mib": disk_reserve_mib,
        "table_delay_ms": table_delay_ms,
    }
    said: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    sources = Sources(said, None if config is None else str(config))
    settings = sources.load()
    from merganser.cli.processes import check_directory, run_processes

    check_directory(settings)
    if settings.processes > 1:
        run_processes(
            settings,
            sources=sources,
            stop_with_stdin=stop_with_stdin,
            print_endpoint=print_endpoint,
            rebuild=rebuild,
            accept_loss=accept_loss,
            process=process,
        )
        return
    from merganser.cli.serve import run_node

    run_node(
        settings,
        stop_with_stdin=stop_with_stdin,
        print_endpoint=print_endpoint,
        rebuild=rebuild,
        accept_loss=accept_loss,
        reloading=Reloading(settings, sources.load),
    )


@cluster.command("start")
def cluster_start(
    nodes: Annotated[int, typer.Option(min=1, max=64, help="How many nodes.")] = 3,
    data: Annotated[Path | None, typer.Option(help="Directory to keep the data in; none: removed at the end.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    dynamodb_port: Annotated[int, typer.Option(help="Of the first node; the next ones count up.")] = 8000,
    peer_port: Annotated[int, typer.Option(help="Likewise.")] = 7700,
    admin_port: Annotated[int, typer.Option(help="Likewise.")] = 7800,
) -> None:
    """Run a cluster on this machine, in the foreground; ctrl-C stops it."""
    from merganser.cli.cluster import run_cluster

    run_cluster(
        nodes=nodes, data=data, host=host, dynamodb_port=dynamodb_port, peer_port=peer_port, admin_port=admin_port
    )


@app.command()
def status(admin: AdminOption = ADMIN_DEFAULT, json: JsonOption = False) -> None:
    """Show every node of a cluster and how it is."""
    from merganser.cli.status import show_status

    show_status(admin, as_json=json)


@app.command()
def ring(admin: AdminOption = ADMIN_DEFAULT, json: JsonOption = False) -> None:
    """Show which node owns which part of the ring."""
    from merganser.cli.status import show_ring

    show_ring(admin, as_json=json)


@app.command()
def repair(
    table: Annotated[str | None, typer.Argument(help="One table [all].")] = None,
    partition: Annotated[int | None, typer.Option(help="One partition of it [all].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what differs and what is damaged.")] = False,
    admin: AdminOption = ADMIN_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Compare all replicas now, and put right what differs or is damaged; exit status 1 if not all could be.

    Nodes do both by themselves in the background. Running it again, or stopping it, does no harm.
    """
    from merganser.cli.repair import repair as repair_cluster

    try:
        is_well = repair_cluster(admin, table=table, partition=partition, is_dry_run=dry_run, as_json=json)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if not is_well:
        raise typer.Exit(1)


@app.command()
def drain(
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for it.")] = 60.0,
    admin: AdminOption = ADMIN_DEFAULT,
) -> None:
    """Have a node leave what it leads to others and send clients elsewhere, before it is stopped.

    Exit status 1 if that is not done in time. Its /health is 503 from then on, and connections are closed after their
    next answer, until it is started again, or until `merganser undrain`.
    """
    from merganser.cli.drain import drain as drain_node

    if not drain_node(admin, timeout_s=timeout):
        raise typer.Exit(1)


@app.command()
def reload(
    everyone: Annotated[bool, typer.Option("--all", help="Every node of the cluster, or none of them.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what has changed.")] = False,
    admin: AdminOption = ADMIN_DEFAULT,
    json: JsonOption = False,
) -> None:
    """Have a node read its settings again, and go by all that have changed, or by none.

    Exit status 2 if something there is wrong, or needs a restart. SIGHUP does the same.
    """
    from merganser.cli.reload import reload as reload_settings

    reload_settings(admin, is_for_all=everyone, is_dry_run=dry_run, as_json=json)


@app.command()
def undrain(admin: AdminOption = ADMIN_DEFAULT) -> None:
    """Have a node that was drained serve as ever."""
    from merganser.cli.drain import undrain as undrain_node

    undrain_node(admin)


@app.command()
def bench(
    endpoint: Annotated[
        list[str] | None,
        typer.Option(help="URL of a DynamoDB endpoint; repeat to spread the load. None: a new local cluster."),
    ] = None,
    pid: Annotated[list[int] | None, typer.Option(help="Process id of a server, whose use is told; repeat.")] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(help="NAME=URL[,URL][@PID[,PID]]: another server, which takes turns with the others; repeat."),
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, max=16, help="Size of the new local cluster.")] = 3,
    workload: Annotated[
        list[str] | None, typer.Option(help="ycsb-a to ycsb-f, or one operation such as page; repeat.")
    ] = None,
    puts: Annotated[
        list[float] | None, typer.Option(min=0.0, max=1.0, help="Share of puts, the rest gets; repeat.")
    ] = None,
    keys: Annotated[
        str | None, typer.Option(help="How items are chosen: uniform, zipfian or latest [as the workload says].")
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="Key range.")] = 10_000,
    item_bytes: Annotated[int, typer.Option(min=1, max=400_000, help="Data of each item.")] = 1_000,
    connections: Annotated[int, typer.Option(min=1, help="Over all load processes.")] = 16,
    processes: Annotated[int, typer.Option(min=1, help="Load processes; at least one an endpoint.")] = 1,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds for each workload.")] = 8.0,
    rate: Annotated[
        float, typer.Option(min=0.0, help="Open loop: so many requests a second, however long they take; 0: closed.")
    ] = 0.0,
    arrivals: Annotated[str, typer.Option(help="How they arrive in open loop: poisson or even.")] = "poisson",
    replication: Annotated[
        list[str] | None,
        typer.Option(
            help="leader or leaderless: how the table is kept; repeat to compare with the first. None: as it comes."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="What is compared takes turns so often within the duration.")] = 6,
    floor: Annotated[bool, typer.Option("--floor", help="Compare with an HTTP echo, RocksDB and fsync too.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Draw the latencies.")] = False,
    json: JsonOption = False,
) -> None:
    """Measure DynamoDB endpoints: throughput, latency, and what the servers use for an operation."""
    from merganser.bench import report
    from merganser.bench.compare import Subject
    from merganser.bench.runner import Plan
    from merganser.bench.workloads import chosen, mixed, named

    shares = puts or ([] if workload else [1.0, 0.5, 0.05])
    mixes = [mixed(one, is_consistent=how) for one in shares for how in (False, True) if one < 1.0 or not how]
    given = [Subject("", tuple(endpoint), tuple(pid or ()))] if endpoint else []
    report.run_bench(
        subjects=[*given, *map(report.compared, compare or [])],
        nodes=nodes,
        workloads=[*(named(one, choice=keys) for one in workload or []), *(chosen(one, keys) for one in mixes)],
        replications=replication or [None],
        plan=Plan(
            endpoints=(),
            table="",
            items=items,
            item_bytes=item_bytes,
            connections=connections,
            processes=processes,
            duration_s=duration,
            rate=rate,
            arrivals=arrivals,
        ),
        rounds=rounds,
        has_floor=floor,
        as_json=json,
        is_plotted=plot,
    )


@app.command()
def sim(
    seeds: Annotated[str, typer.Option(help="FIRST:END, the end left out; or one seed.")] = "0:200",
    workload: Annotated[str, typer.Option(help="What clients do; 'every' takes one after another.")] = "every",
    nemesis: Annotated[
        str, typer.Option(help="What goes wrong; 'all' mixes every family of faults, + joins some.")
    ] = "all",
    nodes: Annotated[int, typer.Option(min=0, max=64, help="Nodes of the simulated cluster; 0: 3 to 5, drawn.")] = 0,
    zones: Annotated[int, typer.Option(min=1, help="Zones that the nodes are spread over.")] = 3,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of the ring, a power of two.")] = 16,
    operations: Annotated[int, typer.Option(min=1, help="Operations of each of the four clients.")] = 25,
    hot_keys: Annotated[int, typer.Option(min=1, help="Keys that all clients share.")] = 3,
    loss: Annotated[float, typer.Option(min=0.0, max=0.9, help="Share of messages that the worst storms lose.")] = 0.2,
    clock_jump: Annotated[float, typer.Option(min=0.0, max=120.0, help="Seconds a clock may be off.")] = 5.0,
    repair_interval: Annotated[
        float, typer.Option(min=0.0, help="Seconds between anti-entropy and purge rounds; 0: drawn, 2, 10 or never.")
    ] = 0.0,
    data_centers: Annotated[
        int, typer.Option("--data-centers", min=0, max=8, help="Data centres, with a node for each zone in each.")
    ] = 0,
    older: Annotated[int, typer.Option(min=0, help="Nodes that begin on the oldest version and are upgraded.")] = 0,
    pace: Annotated[str, typer.Option(help="Of runs on tables with leaders: quick, slow, or drawn.")] = "drawn",
    processes: Annotated[int, typer.Option(min=1, help="Seeds run at the same time.")] = os.cpu_count() or 1,
    trace: Annotated[bool, typer.Option("--trace", help="Print what happened in each run.")] = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Run the seeds for each workload under each nemesis; print the table.")
    ] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="List workloads, nemeses and checkers, and run nothing.")
    ] = False,
) -> None:
    """Run whole clusters under simulated faults; exit status 1 if one broke a promise.

    One seed decides everything that happens in a run. The sum of all runs comes last; a seed that failed is
    printed with the command that replays it.
    """
    from merganser.cli.simulate import list_all, simulate
    from merganser.sim.scenario import Scenario

    if list_:
        list_all()
        return
    scenario = Scenario(
        workload=workload,
        nemesis=nemesis,
        nodes=nodes,
        zones=zones,
        partitions=partitions,
        operations=operations,
        hot_keys=hot_keys,
        loss=loss,
        clock_jump_s=clock_jump,
        repair_interval_s=repair_interval,
        pace=pace,
        data_centers=data_centers,
        older=older,
    )
    if not simulate(seeds, scenario, processes=processes, is_traced=trace, is_matrix=matrix):
        raise typer.Exit(1)


def main() -> None:
    """Run the command; a mistake of the operator is one line on standard error and exit status 2."""
    standard_streams.occupy_closed()
    try:
        app(prog_name="merganser")
    except (ConfigurationError, CorruptionError) as error:
        print(f"merganser: {error}", file=sys.stderr)  # noqa: T201  # a command line speaks
        sys.exit(2)
