"""One server for all clients; each in a process of its own, installed where `make clean` removes it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from clients.expected import ITEM
from merganser.testing import Server

HERE = Path(__file__).parent
CACHE = Path(__file__).parents[2] / ".venv" / "clients"
RUN_TIMEOUT_S = 300.0  # the AWS CLI is a process for each step
INSTALL_TIMEOUT_S = 400.0

Run = Callable[..., Any]
Install = Callable[[str, Sequence[str], Callable[[Path], Sequence[Sequence[str]]]], Path]


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture(scope="session")
def table_names() -> Iterator[str]:
    return (f"ducks-{os.getpid()}-{number}" for number in range(1000))


@pytest.fixture
def table(table_names: Iterator[str]) -> str:
    """A name for a table that no other client has."""
    return next(table_names)


@pytest.fixture
def run(server: Server, table: str, tmp_path: Path) -> Run:
    """Run a client, which is told the table and an item of every type; returns the JSON that it prints."""

    def run_client(*command: str, environment: Mapping[str, str] | None = None, cwd: Path = HERE) -> Any:
        inherited = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        done = subprocess.run(
            [*command, table, json.dumps(ITEM)],
            cwd=cwd,
            env={**inherited, "HOME": str(tmp_path), **server.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-10_000:]
        return json.loads(done.stdout)

    return run_client


@pytest.fixture(scope="session")
def install() -> Install:
    """Install what some files ask for, once for each content of theirs; skips where their registry is out of reach."""

    def installed(name: str, files: Sequence[str], commands: Callable[[Path], Sequence[Sequence[str]]]) -> Path:
        contents = [HERE / name / file for file in files]
        digest = hashlib.sha256(b"\0".join(content.read_bytes() for content in contents)).hexdigest()[:16]
        place = CACHE / f"{name}-{digest}"
        if (place / ".whole").exists():
            return place
        draft = CACHE / f"{name}-{digest}.{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for content in contents:
            shutil.copy(content, draft)
        for command in commands(draft):
            problem = _problem_of(command, draft)
            if problem is not None:
                shutil.rmtree(draft, ignore_errors=True)
                pytest.skip(f"{name}: {' '.join(command[:3])} failed: {' '.join(problem.split())[:300]}")
        (draft / ".whole").touch()
        if place.exists():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.rename(place)
        return place

    return installed


def _problem_of(command: Sequence[str], place: Path) -> str | None:
    try:
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        return str(error)
    return (done.stderr or done.stdout).strip() if done.returncode else None


@pytest.fixture(scope="session")
def npm_packages(install: Install, tool: Callable[[str], str]) -> Callable[[str], Path]:
    """Return where the packages of a directory's package-lock.json are, installed without running any of them."""

    def installed(name: str) -> Path:
        npm = tool("npm")
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=60000"]
        return install(name, ["package.json", "package-lock.json"], lambda _: [[npm, "ci", *options]]) / "node_modules"

    return installed


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Return where a program is; skips by its name where it is not."""

    def find(name: str) -> str:
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return find
