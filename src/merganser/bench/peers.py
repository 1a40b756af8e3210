"""Other servers that speak DynamoDB: installed beside the virtual environment's packages, started, stopped.

Each goes into a folder of its own, ``peers/NAME`` in the virtual environment, by its registry's ordinary client: none
is a dependency of the project, and nothing is installed for the machine. One that cannot be installed or started is
left out, and why is told.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from merganser.bench.compare import Subject
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import free_ports

INSTALL_TIMEOUT_S = 600.0
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG = 1


class Peer(NamedTuple):
    """How one is had."""

    name: str
    install: Callable[[Path], Sequence[Sequence[str]]]
    """Commands that install it into a folder, which is there."""
    program: str
    """What they leave in the folder."""
    arguments: Callable[[int], Sequence[str]]
    """Of the program, to listen on a port of the loopback."""
    environment: Callable[[int], Mapping[str, str]] = lambda _port: {}


def _with_npm(package: str) -> Callable[[Path], Sequence[Sequence[str]]]:
    return lambda folder: [
        ("npm", "init", "--yes", "--prefix", str(folder)),
        ("npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", package),
    ]


def _with_pip(package: str) -> Callable[[Path], Sequence[Sequence[str]]]:
    return lambda folder: [
        (sys.executable, "-m", "venv", str(folder)),
        (str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", package),
    ]


PEERS = (
    Peer(
        "dynalite",
        _with_npm("dynalite@4"),
        "node_modules/.bin/dynalite",
        lambda port: ("--host", "127.0.0.1", "--port", str(port), "--createTableMs", "0", "--deleteTableMs", "0"),
    ),
    Peer(
        "moto",
        _with_pip("moto[server,dynamodb]>=5,<6"),
        "bin/moto_server",
        lambda port: ("-H", "127.0.0.1", "-p", str(port)),
    ),
    Peer(
        "ministack",
        _with_pip("ministack>=1,<2"),
        "bin/ministack",
        lambda _port: (),
        lambda port: {
            "GATEWAY_PORT": str(port),
            "BIND_HOST": "127.0.0.1",
            "SERVICES": "dynamodb",
            "LOG_LEVEL": "WARNING",
        },
    ),
)


def cache() -> Path:
    """Return where peers are installed.

    Raises:
        ConfigurationError: Python does not run in a virtual environment.
    """
    if sys.prefix == sys.base_prefix:
        raise ConfigurationError("peers are installed into a virtual environment only: run this from one")
    return Path(sys.prefix) / "peers"


def install(peer: Peer, folder: Path) -> Path:
    """Return the peer's program, installed into ``folder`` if it is not there.

    Raises:
        ConfigurationError: that failed; says why. Nothing of it stays.
    """
    program = folder / peer.program
    if program.exists():
        return program
    shutil.rmtree(folder, ignore_errors=True)  # what an attempt left that was stopped
    folder.mkdir(parents=True)
    for command in peer.install(folder):
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            words = str(getattr(error, "stderr", "") or error).strip().splitlines()
            raise ConfigurationError(f"{command[0]} failed: {words[-1] if words else error}") from None
    if not program.exists():
        shutil.rmtree(folder, ignore_errors=True)
        raise ConfigurationError(f"what was installed has no {peer.program}")
    return program


@contextlib.contextmanager
def served(peer: Peer, program: Path, log: Path) -> Iterator[Subject]:
    """Start a peer, keeping its data in memory, and stop it and its children at the end; its words go to ``log``.

    Raises:
        ConfigurationError: it does not serve within a minute.
    """
    (port,) = free_ports("127.0.0.1", 1)
    with log.open("wb") as words:
        process = subprocess.Popen(
            [str(program), *peer.arguments(port)],
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env={**os.environ, **peer.environment(port)},
            cwd=log.parent,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
    try:
        _wait_until_served(process, port, log)
        yield Subject(peer.name, (f"http://127.0.0.1:{port}",), (process.pid,))
    finally:
        _stop(process)


def _wait_until_served(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT_S)
        try:
            connection.request("GET", "/")
            connection.getresponse()
            return
        except (OSError, http.client.HTTPException):
            if process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").strip().splitlines()
                raise ConfigurationError(f"it does not serve: {lines[-1] if lines else 'it said nothing'}") from None
            time.sleep(_POLL_S)
        finally:
            connection.close()


def _end_with_parent() -> None:
    """Have the kernel end this process, which is to become the peer, when its parent ends, however that does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children: it leads a group of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):  # the second for those that outlive the first, and it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)


@contextlib.contextmanager
def all_served(directory: Path, *, tell: Callable[[str], None]) -> Iterator[list[Subject]]:
    """Start every peer that can be had, with ``directory`` for their logs; ``tell`` hears which cannot, and why."""
    with contextlib.ExitStack() as stack:
        subjects: list[Subject] = []
        for peer in PEERS:
            try:
                program = install(peer, cache() / peer.name)
                subjects.append(stack.enter_context(served(peer, program, directory / f"{peer.name}.log")))
            except ConfigurationError as error:
                tell(f"{peer.name} is left out: {error}")
        yield subjects
