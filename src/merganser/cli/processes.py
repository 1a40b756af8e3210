"""``merganser serve --processes K``: K nodes on this machine behind one port for clients.

Each is a process and a full node of the cluster, with a directory (DATA/process-1, …), a peer port and an admin port
of its own, which count up. They name the same machine, so that replicas of a key share it only if there is no other.

Each listens with a socket of its own on the one port for DynamoDB clients (SO_REUSEPORT): the kernel deals connections
out to those that listen. A process that ends is started again, with a pause that grows; meanwhile new connections
go to the others.

    starting --all serve--> serving --told to stop--> stopping
        |                      +-- one ended: it is started again
        +-- one ended with a mistake of the operator: all are stopped

What a process is told comes in one line on its standard input, which stays open for as long as this process lives: when
it ends, however it does, they stop.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

from merganser.cli.serve import run_node, stopping, when_hung_up
from merganser.model.errors import ConfigurationError, CorruptionError
from merganser.node.data_directory import known_identity
from merganser.node.local_cluster import free_ports
from merganser.node.logs import event, failure, log_to
from merganser.node.reloading import Reloading, Sources, with_taken_over
from merganser.node.settings import Settings

OPERATORS_MISTAKE = 2
"""Exit status of a process that cannot start as it was told to."""
STOP_TIMEOUT_S = 15.0
_PAUSE_S, _PAUSE_MAX_S = 0.1, 30.0
"""Before a process that ended is started again: doubled each time, until one has served."""


class Orders(msgspec.Struct, frozen=True):
    """What one process is told."""

    process: int
    """From 1."""
    settings: Settings
    door: int
    """Descriptor of the bound socket for clients."""
    rebuild: bool = False
    accept_loss: bool = False
    whole: Settings | None = None
    """Of all processes together, as they were read at the start."""
    sources: Sources = Sources()
    """Where they come from."""


def run_processes(
    settings: Settings,
    *,
    sources: Sources,
    stop_with_stdin: bool,
    print_endpoint: bool = False,
    rebuild: bool = False,
    accept_loss: bool = False,
    process: int | None = None,
) -> None:
    """Run ``settings.processes`` nodes until a signal, or the end of standard input if asked to, stops them.

    Args:
        sources: where the settings come from, and are read again.
        process: the one that ``rebuild`` or ``accept_loss`` is for.

    Raises:
        ConfigurationError: they cannot start.
        SystemExit: with status 2 if one of them says so, in words of its own.
    """
    if (rebuild or accept_loss) and not (process and 1 <= process <= settings.processes):
        raise ConfigurationError(
            f"--rebuild and --accept-loss are for one process: say which with --process 1 to {settings.processes}"
        )
    log_to(sys.stderr)
    orders = [
        Orders(
            process=number,
            settings=one,
            door=-1,
            rebuild=rebuild and number == process,
            accept_loss=accept_loss and number == process,
            whole=settings,
            sources=sources,
        )
        for number, one in enumerate(split(settings), start=1)
        if not has_left(one)
    ]
    if not orders:
        raise ConfigurationError(
            f"all nodes in --data {settings.data} have left their cluster: empty the directory to use the machine again"
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        is_well = runner.run(_run(orders, stop_with_stdin=stop_with_stdin, print_endpoint=print_endpoint))
    if not is_well:
        raise SystemExit(OPERATORS_MISTAKE)


def split(settings: Settings) -> list[Settings]:
    """Return the settings of each process.

    Raises:
        ConfigurationError: the ports of some overlap, are in use or beyond 65535; the directory holds something else.
    """
    count = settings.processes
    check_directory(settings)
    is_any_free = not (settings.dynamodb_port and settings.peer_port and settings.admin_port)
    free = iter(free_ports(settings.host, 2 * count + 1) if is_any_free else ())
    dynamodb_port = settings.dynamodb_port or next(free)
    peer_ports, admin_ports = (_ports(settings, name, free) for name in ("peer_port", "admin_port"))
    _check_ports(dynamodb_port, peer_ports, admin_ports)
    first = settings.advertised_to_peers(peer_ports[0])
    seeds = [_shifted(seed, i) for seed in settings.seed or () for i in range(count)]
    if not seeds and not settings.join:
        seeds = [settings.advertised_to_peers(port) for port in peer_ports]
    return [
        msgspec.structs.replace(
            settings,
            processes=1,
            data=None if settings.data is None else str(Path(settings.data) / f"process-{i + 1}"),
            dynamodb_port=dynamodb_port,
            peer_port=peer_ports[i],
            admin_port=admin_ports[i],
            peer_advertise=_shifted(settings.peer_advertise, i) if settings.peer_advertise else "",
            machine=settings.machine or first,
            seed=tuple(seeds),
        )
        for i in range(count)
    ]


def check_directory(settings: Settings) -> None:
    """Check that ``data`` was written by as many processes as there are to be.

    Raises:
        ConfigurationError: by more, or fewer.
    """
    if settings.data is None:
        return
    directory = Path(settings.data)
    found = len(list(directory.glob("process-*/node.json")))
    if settings.processes > 1 and (directory / "node.json").exists():
        found = 1
    if found and found != settings.processes:
        raise ConfigurationError(
            f"--data {directory} holds {found} node{'s' if found > 1 else ''}: start it with --processes {found}, "
            "or choose an empty directory"
        )


def has_left(settings: Settings) -> bool:
    """Tell whether the node of a directory is a member no more, so that its process is not started."""
    identity = None if settings.data is None else known_identity(Path(settings.data))
    if identity is None or not identity.left_at:
        return False
    event("a process is not started, its node has left its cluster", data=settings.data, node=identity.node_id)
    return True


def _ports(settings: Settings, name: str, free: Iterator[int]) -> list[int]:
    first: int = getattr(settings, name)
    if not first:
        return [next(free) for _ in range(settings.processes)]
    if first + settings.processes > 65536:
        raise ConfigurationError(f"--{name.replace('_', '-')} {first} leaves no room for {settings.processes} ports")
    return [first + i for i in range(settings.processes)]


def _check_ports(dynamodb_port: int, peer_ports: list[int], admin_ports: list[int]) -> None:
    taken: dict[int, str] = {dynamodb_port: "--dynamodb-port"}
    for option, ports in ("--peer-port", peer_ports), ("--admin-port", admin_ports):
        for port in ports:
            if port in taken:
                raise ConfigurationError(
                    f"{option} and {taken[port]} both come to {port}, as each process takes the next port: "
                    "put them further apart"
                )
            taken[port] = option


def _shifted(address: str, by: int) -> str:
    host, _, port = address.rpartition(":")
    return f"{host}:{int(port) + by}"


async def _run(orders: list[Orders], *, stop_with_stdin: bool, print_endpoint: bool) -> bool:
    """Run all until told to stop; returns whether no process found a mistake of the operator before all served."""
    settings = orders[0].settings
    _check_free(settings.host, settings.dynamodb_port)
    with stopping(stop_with_stdin=stop_with_stdin) as stop:
        keepers = [_Keeper(one) for one in orders]
        when_hung_up(partial(_reload_all, keepers))
        keeping = [asyncio.ensure_future(keeper.keep()) for keeper in keepers]
        stopped = asyncio.ensure_future(stop.wait())
        all_ready = asyncio.gather(*(keeper.is_ready.wait() for keeper in keepers))
        mistakes = [asyncio.ensure_future(keeper.is_mistaken.wait()) for keeper in keepers]
        waiting: list[asyncio.Future[Any]] = [stopped, all_ready, *mistakes]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        is_well = not any(mistake.done() for mistake in mistakes)
        if is_well and all_ready.done():
            endpoint = f"http://{settings.advertised(settings.dynamodb_port)}"
            event("all processes serve", processes=len(orders), dynamodb=endpoint)
            if print_endpoint:
                print(endpoint, flush=True)  # noqa: T201  # asked for
            ended: list[asyncio.Future[Any]] = [stopped, asyncio.gather(*keeping)]
            await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        for future in waiting:
            future.cancel()
        await asyncio.gather(*(keeper.stop() for keeper in keepers))
        await asyncio.gather(*keeping)
    return is_well


def _reload_all(keepers: Sequence[_Keeper]) -> None:
    for keeper in keepers:
        keeper.reload()


class _Keeper:
    """Keeps one process running."""

    def __init__(self, orders: Orders) -> None:
        self.is_ready = asyncio.Event()
        self.is_mistaken = asyncio.Event()
        self._orders = orders
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    async def keep(self) -> None:
        """Start the process, and again whenever it ends, until `stop`, or until its node has left its cluster."""
        pause_s = _PAUSE_S
        while not self._stopping.is_set():
            has_served, status = await self._once()
            if self._stopping.is_set():
                return
            if status == 0 and has_served:
                event("a process has left its cluster", process=self._orders.process)
                return
            if status == OPERATORS_MISTAKE and not self.is_ready.is_set():
                self.is_mistaken.set()
                return
            pause_s = _PAUSE_S if has_served else min(2 * pause_s, _PAUSE_MAX_S)
            failure("a process ended and is started again", process=self._orders.process, status=status, in_s=pause_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()

    def reload(self) -> None:
        """Have the process read its settings again; one that is started later reads them then."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGHUP)

    async def stop(self) -> None:
        """Let the process finish what it does; kill it if that takes too long."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _once(self) -> tuple[bool, int]:
        """Run the process to its end; returns whether it served, and its exit status."""
        settings = self._orders.settings
        try:
            door = _bound(settings.host, settings.dynamodb_port)
        except OSError as error:
            failure("no socket for clients", process=self._orders.process, reason=str(error))
            return False, error.errno or 1
        with door:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "merganser.cli.processes"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=[door.fileno()],
                start_new_session=True,  # ctrl-C is for this process, which then stops the others in order
            )
            orders = msgspec.structs.replace(self._orders, door=door.fileno())
        self._orders = msgspec.structs.replace(self._orders, rebuild=False, accept_loss=False)  # once
        if self._stopping.is_set():  # told while the process was being made, which `stop` did not know
            process.terminate()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):
            process.stdin.write(msgspec.json.encode(orders) + b"\n")
            await process.stdin.drain()
        has_served = bool(await process.stdout.readline())  # the endpoint
        if has_served:
            self.is_ready.set()
        return has_served, await process.wait()


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that shares ``port`` with those of the other processes."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    door = socket.socket(family, kind, protocol)
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        door.bind(address)
    except OSError:
        door.close()
        raise
    return door


def _check_free(host: str, port: int) -> None:
    """Check that nobody listens on ``port``: what shares it would take half of the clients, and nobody would notice.

    Raises:
        ConfigurationError: somebody does, or the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind(address)
            alone.listen(1)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it, or choose another --host or "
            "--dynamodb-port"
        ) from None


def _as_by_now(orders: Orders) -> tuple[Settings, Reloading]:
    """Return the settings of a process that may be started long after the first, and what reads them again."""
    whole = orders.whole or orders.settings
    reloading = Reloading(whole, orders.sources.load)
    try:
        wanted, _ = reloading.read()
    except ConfigurationError as error:
        print(  # noqa: T201  # before there is a log
            f"merganser: process {orders.process} goes on with the settings of the first start: {error}",
            file=sys.stderr,
        )
        return orders.settings, reloading
    reloading.taken_over(wanted)
    return with_taken_over(orders.settings, wanted), reloading


def main() -> None:
    """Be one of the processes."""
    stdin = cast("io.BufferedReader", sys.stdin.buffer)
    unbuffered = cast("io.FileIO", stdin.raw)  # what comes after the line is not to be read ahead
    orders = msgspec.json.decode(unbuffered.readline(), type=Orders)
    door = socket.socket(fileno=orders.door)
    try:
        settings, reloading = _as_by_now(orders)
        run_node(
            settings,
            stop_with_stdin=True,
            print_endpoint=True,
            rebuild=orders.rebuild,
            accept_loss=orders.accept_loss,
            door=door,
            process=orders.process,
            reloading=reloading,
        )
    except (ConfigurationError, CorruptionError) as error:
        print(f"merganser: process {orders.process}: {error}", file=sys.stderr)  # noqa: T201  # a command line speaks
        sys.exit(OPERATORS_MISTAKE)


if __name__ == "__main__":
    main()
