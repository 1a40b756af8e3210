"""Who is alive, as real processes see it: stopped, killed, restarted, and with datagrams blocked."""

from __future__ import annotations

import json
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode
from merganser.testing.conditions import Conditions
from merganser.testing.links import Links

pytestmark = pytest.mark.process


def status(node: LocalNode) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{node.addresses['admin']}/status", timeout=10) as response:
        found: dict[str, Any] = json.load(response)
        return found


def belief(observer: LocalNode, of: str) -> dict[str, Any]:
    found: dict[str, Any] = status(observer)["membership"]["members"][of]
    return found


def all_alive(nodes: list[LocalNode]) -> bool:
    return all(view["state"] == "alive" for node in nodes for view in status(node)["membership"]["members"].values())


def test_a_stopped_node_is_suspected_and_refutes_when_it_goes_on(
    cluster: LocalCluster, eventually: Any, command: Any
) -> None:
    *others, stopped = cluster.nodes
    its_id = status(stopped)["node"]
    stopped.kill(signal.SIGSTOP)
    try:
        eventually(lambda: all(belief(other, its_id)["state"] != "alive" for other in others))
        seen = belief(others[0], its_id)
        assert seen["state"] == "dead" or seen["accusers"]
        said = command("status", "--admin", others[0].addresses["admin"]).stdout
        assert "suspect" in said or "dead" in said
    finally:
        stopped.kill(signal.SIGCONT)
    eventually(lambda: all_alive(cluster.nodes))
    eventually(lambda: all(belief(other, its_id)["incarnation"] >= 1 for other in others))
    assert status(stopped)["membership"]["incarnation"] >= 1


def test_a_killed_node_is_believed_dead_and_alive_again_after_its_restart(
    cluster: LocalCluster, eventually: Any, command: Any
) -> None:
    *others, killed = cluster.nodes
    its_id = status(killed)["node"]
    killed.kill()
    eventually(lambda: all(belief(other, its_id)["state"] == "dead" for other in others))
    said = command("status", "--admin", others[0].addresses["admin"]).stdout
    assert "membership, as node 1 sees it" in said
    assert "dead" in said
    assert max(map(len, said.splitlines())) <= 80
    killed.start()
    killed.wait_until_ready()
    eventually(lambda: all_alive(cluster.nodes))


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[tuple[LocalCluster, Links]]:
    """Three nodes behind links."""
    with Links(3) as links:
        cluster = LocalCluster(tmp_path / "cluster", peer_advertise=links.addresses)
        links.lead_to(cluster.peer_addresses)
        with cluster:
            yield cluster, links


def test_with_every_datagram_lost_connections_keep_all_alive(
    linked: tuple[LocalCluster, Links], eventually: Any
) -> None:
    cluster, links = linked
    eventually(lambda: all(status(node)["membership"]["datagrams_heard"] >= 3 for node in cluster.nodes))
    links.change_all(Conditions(loss=1.0))
    before = [status(node)["membership"] for node in cluster.nodes]

    def have_probed_over_connections() -> bool:
        assert all_alive(cluster.nodes)
        now = [status(node)["membership"] for node in cluster.nodes]
        return all(
            later["sent_over_connections"] - earlier["sent_over_connections"] >= 6
            for earlier, later in zip(before, now, strict=True)
        )

    eventually(have_probed_over_connections)


def test_datagrams_pass_a_proxy(linked: tuple[LocalCluster, Links], eventually: Any) -> None:
    cluster, _ = linked
    eventually(lambda: all(status(node)["membership"]["datagrams_heard"] >= 6 for node in cluster.nodes))
    for said in (status(node)["membership"] for node in cluster.nodes):  # one that is late is asked over a connection
        assert said["sent_over_connections"] < said["datagrams_heard"]


def test_a_udp_port_that_is_taken_stops_the_start_and_says_what_to_do(tmp_path: Path) -> None:
    alone = LocalCluster(tmp_path / "cluster", nodes=1)
    host, _, port = alone.peer_addresses[0].rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((host, int(port)))
        with pytest.raises(ConfigurationError, match=rf"UDP port {host}:{port}.*stop what uses it.*--peer-port"):
            alone.start()


def test_strangers_and_garbage_are_counted_and_do_no_harm(cluster: LocalCluster, eventually: Any) -> None:
    node = cluster.nodes[0]
    host, _, port = node.addresses["peers"].rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (b"", b"\xff" * 1200, b"\x91" * 1200, b"x" * 60_000, b"GET / HTTP/1.1\r\n\r\n"):
            stranger.sendto(data, (host, int(port)))
    eventually(lambda: status(node)["membership"]["datagrams_ignored"] >= 5)
    assert all_alive(cluster.nodes)
