"""The native client and real processes: nodes die under it, come and go, and the programs of the documentation run."""

from __future__ import annotations

import asyncio
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import merganser
from merganser.cli.admin_port import fetch
from merganser.client import ValueTable
from merganser.model.errors import MerganserError, UnknownOutcomeError
from merganser.node.local_cluster import LocalCluster

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
WORKERS = 8
PUTS_A_PHASE = 150
PAUSE_S = 0.02
"""Between the puts of one worker, where nodes are to find time for something else."""
OPERATION_S = 300.0


class Load:
    """Clients that put values that nobody else puts, and remember what was acknowledged."""

    def __init__(self, table: ValueTable, pause_s: float) -> None:
        self.table = table
        self.pause_s = pause_s
        self.acked: dict[str, bytes] = {}
        self.unknown: dict[str, bytes] = {}
        self.other: list[MerganserError] = []
        self.puts = 0
        self.is_over = False

    async def work(self, worker: int) -> None:
        number = 0
        while not self.is_over:
            number += 1
            key, value = f"key-{worker}-{number}", f"{worker}-{number}".encode()
            try:
                await self.table.put(key, value)
                self.acked[key] = value
            except UnknownOutcomeError:
                self.unknown[key] = value
            except MerganserError as error:
                self.other.append(error)
            self.puts += 1
            await asyncio.sleep(self.pause_s)

    async def go_on(self) -> None:
        """Return when so many more were acknowledged."""
        async with asyncio.timeout(30.0):
            there = len(self.acked)
            while len(self.acked) < there + PUTS_A_PHASE:  # noqa: ASYNC110  # seen from outside only
                await asyncio.sleep(0.01)


async def under_load(
    table: ValueTable, play: Callable[[Load], Coroutine[Any, Any, None]], *, pause_s: float = 0.0
) -> Load:
    """Run ``play`` while clients put; returns when each put that was acknowledged has been read."""
    load = Load(table, pause_s)
    workers = [asyncio.create_task(load.work(worker)) for worker in range(WORKERS)]
    try:
        await play(load)
    finally:
        load.is_over = True
        await asyncio.gather(*workers)
    for key, value in load.acked.items():
        assert (await table.get(key)).all == [value]
    for key, value in load.unknown.items():
        assert set((await table.get(key)).all) <= {value}
    return load


def seeds(cluster: LocalCluster) -> list[str]:
    return [node.addresses["peers"] for node in cluster.nodes]


def test_programs_of_the_guide_run_and_no_acknowledged_put_is_lost_when_a_node_is_killed(
    cluster: LocalCluster, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_start = program("README.md", "SyncClient").replace("127.0.0.1:7700", cluster.nodes[0].addresses["peers"])
    assert len(quick_start.splitlines()) <= 12
    assert run(quick_start) == "bread, milk\n"
    guide = program("docs/user-guide.md", "merge=union").replace("127.0.0.1:7700", cluster.nodes[0].addresses["peers"])
    assert run(guide) == "bread, eggs, milk\n"
    merging = program("docs/user-guide.md", "client.crdt(").replace("127.0.0.1:7700", seeds(cluster)[1])
    assert run(merging) == "{b'readers': frozenset({b'ann'}), b'visits': 1}\n"

    async def scenario() -> None:
        # one seed is enough, even if it dies
        async with merganser.Client(seeds(cluster)[2]) as client:
            table = await client.create_table("values")

            async def play(load: Load) -> None:
                await load.go_on()
                await asyncio.to_thread(cluster.nodes[2].kill)
                await load.go_on()
                await asyncio.to_thread(cluster.nodes[2].start)
                await asyncio.to_thread(cluster.nodes[2].wait_until_ready)
                await load.go_on()

            load = await under_load(table, play)
            assert load.other == []  # two of three were there all the time
            assert len(load.unknown) <= WORKERS  # what was on its way to the node that died

    asyncio.run(scenario())
    monkeypatch.syspath_prepend(ROOT / "examples")
    assert importlib.import_module("crdt_cart").shop(cluster)  # which kills a node as well
    told = capsys.readouterr().out
    assert "it holds ['bread', 'milk'], and there was nothing to merge" in told
    assert "80 items were put in, 0 are missing, 80 were counted" in told
    assert "it holds ['eggs', 'milk']: the bread stays out" in told
    assert "it holds ['eggs', 'milk']: whoever puts in wins" in told


@pytest.mark.soak
def test_nodes_join_and_leave_under_a_client(
    cluster: LocalCluster, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    async def scenario() -> None:
        # who changes hands must make no put fail; that a disk keeps one waiting for seconds is another matter
        async with merganser.Client(seeds(cluster)[:1], timeout_s=30.0) as client:
            table = await client.create_table("values")

            async def play(load: Load) -> None:
                await load.go_on()
                joined = await asyncio.to_thread(cluster.add_node, zone="zone-4")
                await asyncio.to_thread(joined.start)
                await asyncio.to_thread(joined.wait_until_ready)
                admin = cluster.nodes[1].addresses["admin"]
                await operate(command, admin, "join", joined.addresses["peers"])
                await load.go_on()
                left = cluster.nodes[0]  # the only seed that the client was given
                await operate(command, admin, "leave", left.addresses["peers"])
                async with asyncio.timeout(90.0):
                    while left.pid is not None:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                await load.go_on()

            load = await under_load(table, play, pause_s=PAUSE_S)
            assert load.other == []
            assert load.unknown == {}

    asyncio.run(scenario())


async def operate(
    command: Callable[..., subprocess.CompletedProcess[str]], admin: str, operation: str, node: str
) -> None:
    """Begin an operation, and return when it is done: background work of busy nodes takes its time."""
    begun = await asyncio.to_thread(command, operation, "--yes", "--detach", "--admin", admin, node)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    async with asyncio.timeout(OPERATION_S):
        while (page := await asyncio.to_thread(fetch, admin, "/operation"))["running"] is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert page["last"]["is_done"], page


def test_the_shopping_cart_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "shopping_cart.py")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'merged, with eggs: b\'["bread", "eggs", "milk"]\', which is 1 value' in done.stdout
    assert "80 items were put in, 0 are missing" in done.stdout
    assert "the bread is back" in done.stdout
    assert done.stdout.endswith("nothing that was put in was lost\n")


def test_importing_merganser_does_not_import_the_client() -> None:
    assert (
        run("import merganser, sys; print('merganser.client' in sys.modules, 'asyncio' in sys.modules)")
        == "False False\n"
    )
    assert run("import merganser; print(merganser.Client.__name__)") == "Client\n"
    assert run("import merganser\ntry:\n merganser.Other\nexcept AttributeError as e:\n print(e)").startswith(
        "module 'merg"
    )


def program(page: str, mark: str) -> str:
    """Return the one program of a page that has ``mark`` in it."""
    found = [text for text in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL) if mark in text]
    assert len(found) == 1, f"{page} has {len(found)} programs with {mark}"
    return str(found[0])


def run(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
