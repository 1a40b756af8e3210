"""Clusters in network namespaces, and the verdict on what their clients saw."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from merganser.testing.links import Links
from namespaces.cluster import WAIT_S, NamespaceCluster
from namespaces.disks import Disk
from namespaces.load import Load
from namespaces.network import CLIENTS, Network, unsupported
from namespaces.workload import Workload

Laboratory = tuple[NamespaceCluster, Load]


@pytest.fixture(scope="session")
def can_make_networks() -> None:
    """Skip, and say why, where network namespaces cannot be made."""
    reason = unsupported()
    if reason is not None:
        pytest.skip(f"no network namespaces here: {reason}")


@pytest.fixture(scope="session")
def can_make_disks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skip, and say why, where an image cannot be mounted."""
    disk = Disk(tmp_path_factory.mktemp("disks") / "disk")
    try:
        with disk:
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no disks of their own here: {error}")


@pytest.fixture
def laboratory(can_make_networks: None, tmp_path: Path) -> Iterator[Callable[..., Laboratory]]:
    """Start a cluster with clients at work; everything is taken down at the end of the test."""
    with contextlib.ExitStack() as stack:

        def start(
            *,
            nodes: int = 3,
            has_disks: bool = False,
            disk_reserve_mib: int = 0,
            has_links: bool = False,
            kind: type[Load] = Workload,
            **load: Any,
        ) -> Laboratory:
            network = stack.enter_context(Network(nodes))
            links = Links(nodes, host=CLIENTS, prepare_thread=network.join_clients) if has_links else None
            if links is not None:
                stack.enter_context(links)
            cluster = NamespaceCluster(
                tmp_path, network, links=links, has_disks=has_disks, disk_reserve_mib=disk_reserve_mib
            )
            stack.enter_context(cluster)
            workload = kind(network, cluster.urls, **load)
            stack.callback(workload.close)
            workload.start()
            return cluster, workload

        yield start


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], object]], None]:
    """Wait until a condition holds; fails after a deadline."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)  # between two looks, not for the thing to happen

    return wait


@pytest.fixture
def verdict() -> Callable[[NamespaceCluster, Load], None]:
    """Heal what is left to heal, end the load, and fail on whatever a client may not have seen."""

    def check(cluster: NamespaceCluster, workload: Load) -> None:
        cluster.network.heal()
        cluster.wait_until_connected()
        workload.wait_for_progress()
        workload.stop()
        told = [*workload.final_state(), *workload.violations()]
        assert told == [], workload.summary()

    return check
