"""``merganser serve``: one node in this process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial

import uvloop

from merganser.model.errors import ConfigurationError, CorruptionError
from merganser.node.logs import event, failure, log_to
from merganser.node.node import Node, serve
from merganser.node.reloading import Reloading
from merganser.node.settings import Settings

DESCRIPTORS_OWN = 1024  # RocksDB's files, peers, the admin port
YOUNG_OBJECTS_MAX = 20_000
"""What is made between two looks for cycles. Requests leave none but where they fail, and Python's 700 are made by some
ten of them: looking so often took 5 % of the samples of a node under puts. A few MB of cycles wait at most."""


def run_node(
    settings: Settings,
    *,
    stop_with_stdin: bool,
    print_endpoint: bool = False,
    rebuild: bool = False,
    accept_loss: bool = False,
    door: socket.socket | None = None,
    process: int | None = None,
    reloading: Reloading | None = None,
) -> None:
    """Run a node until a signal, or the end of standard input if asked to, stops it.

    Args:
        print_endpoint: once it serves, one line on standard output is the URL for DynamoDB clients.
        door: a bound socket for DynamoDB clients, instead of one of the node's own.
        process: number of it among several, for the log.
        reloading: reads the settings again, when SIGHUP, or the admin port, asks for it.

    Raises:
        ConfigurationError: the node cannot start.
        CorruptionError: its files are damaged.
        SystemExit: with status 1 after any other error, which is in the log.
    """
    log_to(sys.stderr, **({} if process is None else {"process": process}))
    _allow_descriptors(settings.connections_max + DESCRIPTORS_OWN)
    gc.set_threshold(YOUNG_OBJECTS_MAX, *gc.get_threshold()[1:])
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            stopped = _until_stopped(
                settings,
                stop_with_stdin=stop_with_stdin,
                rebuild=rebuild,
                accept_loss=accept_loss,
                door=door,
                reloading=reloading,
                on_ready=partial(_ready, print_endpoint=print_endpoint),
            )
            runner.run(stopped)
    except (ConfigurationError, CorruptionError):
        raise
    except Exception as error:  # noqa: BLE001 - the root of the process
        failure("the node ended by an error of its own", error)
        raise SystemExit(1) from None


def _allow_descriptors(wanted: int) -> None:
    """Let this process have as many file descriptors as its connections may need, as far as it may."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return
    granted = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, most))
    if granted < wanted:
        event("too few file descriptors: raise the hard limit or lower connections_max", wanted=wanted, allowed=granted)


def _ready(node: Node, *, print_endpoint: bool) -> None:
    when_hung_up(partial(_reload, node))
    gc.freeze()  # what is there by now stays: it need not be looked through again and again
    if print_endpoint:
        print(f"http://{node.addresses['dynamodb']}", flush=True)  # noqa: T201  # asked for


def _reload(node: Node) -> None:
    try:
        node.reload()
        _allow_descriptors(node.settings.connections_max + DESCRIPTORS_OWN)
    except ConfigurationError as error:
        failure("settings were not read again", reason=str(error))


def when_hung_up(reload: Callable[[], None]) -> None:
    """Call ``reload`` on the loop at each SIGHUP; unless a terminal goes with it, which hangs up when it is closed."""
    if sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty():
        return
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(reload))


async def _until_stopped(
    settings: Settings,
    *,
    stop_with_stdin: bool,
    rebuild: bool,
    accept_loss: bool,
    door: socket.socket | None,
    reloading: Reloading | None,
    on_ready: Callable[[Node], None],
) -> None:
    when_hung_up(lambda: event("settings are being read: the node is starting"))
    with stopping(stop_with_stdin=stop_with_stdin) as stop:
        await serve(
            settings,
            stop=stop,
            rebuild=rebuild,
            accept_loss=accept_loss,
            door=door,
            reloading=reloading,
            on_ready=on_ready,
        )


@contextlib.contextmanager
def stopping(*, stop_with_stdin: bool) -> Iterator[asyncio.Event]:
    """Yield an event that ctrl-C, SIGTERM, or the end of standard input if asked for, sets."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    before = {
        number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    if stop_with_stdin:
        _watch_stdin(stop)
    try:
        yield stop
    except BaseException:
        for number, handler in before.items():
            signal.signal(number, handler)
        raise
    for number in before:  # asked again on its way out, a node still ends cleanly; a handler of the loop leaves gaps
        signal.signal(number, signal.SIG_IGN)


def _watch_stdin(stop: asyncio.Event) -> None:
    if sys.stdin is None:
        raise ConfigurationError(
            "--stop-with-stdin needs a pipe or a terminal as standard input, and it is closed: start the node with a "
            "pipe, or without --stop-with-stdin"
        )
    stdin = sys.stdin.fileno()
    try:
        asyncio.get_running_loop().add_reader(stdin, _stop_at_end, stdin, stop)
    except OSError as error:
        raise ConfigurationError(
            f"--stop-with-stdin needs a pipe or a terminal as standard input, and no file or /dev/null: {error}"
        ) from None


def _stop_at_end(stdin: int, stop: asyncio.Event) -> None:
    if not os.read(stdin, 4096):
        asyncio.get_running_loop().remove_reader(stdin)
        stop.set()
