"""Real nodes under the faults of real networks and processes, judged by what boto3 clients saw."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from merganser.sim.checkers.registers import Outcome
from merganser.testing.conditions import CLEAR, Conditions
from namespaces.cluster import NamespaceCluster
from namespaces.items import Items
from namespaces.workload import Workload

pytestmark = pytest.mark.process


@pytest.mark.parametrize("is_leaderless", [pytest.param(False, marks=pytest.mark.soak), True])  # the next does that too
def test_faults_of_network_and_processes_lose_nothing_and_show_nothing_stale(
    laboratory: Any, verdict: Any, is_leaderless: bool
) -> None:
    cluster: NamespaceCluster
    load: Workload
    cluster, load = laboratory(is_leaderless=is_leaderless)
    network = cluster.network

    network.partition([0], [1, 2])
    load.wait_for_progress()
    network.heal()
    network.cut(sender=1, receiver=2)
    load.wait_for_progress()
    network.heal()
    network.lose(percent=20)
    load.wait_for_progress()
    network.heal()
    network.reset(2)
    load.wait_for_progress()
    network.heal()

    cluster.nodes[0].kill(signal.SIGSTOP)
    load.wait_for_progress()
    cluster.nodes[0].kill(signal.SIGCONT)
    cluster.nodes[1].kill(signal.SIGKILL)
    load.wait_for_progress()
    cluster.restart(1)
    verdict(cluster, load)
    assert any(put.outcome is not Outcome.ACKNOWLEDGED for put in load.puts)  # or the faults were none


def test_items_stay_registers_and_money_is_kept_under_faults_of_network_and_processes(
    laboratory: Any, verdict: Any
) -> None:
    cluster: NamespaceCluster
    load: Items
    cluster, load = laboratory(kind=Items)
    network = cluster.network

    network.partition([0], [1, 2])  # each leads some of the partitions
    load.wait_for_progress()
    network.heal()
    network.cut(sender=0, receiver=2)
    load.wait_for_progress()
    network.heal()
    network.lose(percent=20)
    load.wait_for_progress()
    network.heal()
    network.reset(1)
    load.wait_for_progress()
    network.heal()

    cluster.nodes[0].kill(signal.SIGSTOP)
    load.wait_for_progress()
    cluster.nodes[0].kill(signal.SIGCONT)
    load.wait_for_progress()
    cluster.nodes[2].kill(signal.SIGKILL)
    load.wait_for_progress()
    cluster.restart(2)
    verdict(cluster, load)
    assert load.unknown  # or the faults were none


def test_power_cut_of_all_nodes_changes_no_item_and_loses_no_money(
    can_make_disks: None, laboratory: Any, verdict: Any
) -> None:
    cluster, load = laboratory(kind=Items, has_disks=True)
    cluster.cut_power([0, 1, 2])
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        node.wait_until_ready()
    verdict(cluster, load)


def test_reads_of_one_replica_in_a_partition_are_found_out(laboratory: Any) -> None:
    """The instrument itself: what is promised of QUORUM only must show when it is not asked for."""
    cluster, load = laboratory(is_leaderless=True, level="ONE")
    cluster.network.partition([0], [1, 2])
    load.wait_for_progress()
    load.stop()
    assert any(told.startswith("stale") for told in load.violations())


def test_delay_and_a_thin_line_lose_nothing_and_show_nothing_stale(laboratory: Any, verdict: Any) -> None:
    cluster, load = laboratory(has_links=True)
    cluster.links.change_all(Conditions(delay_s=0.02, jitter_s=0.05))
    load.wait_for_progress()
    cluster.links.change_all(CLEAR)
    for other in (1, 2):  # slow in one direction only
        cluster.links.change(Conditions(delay_s=0.2, bytes_per_s=20_000), sender=other, receiver=0)
    load.wait_for_progress()
    cluster.links.heal()
    verdict(cluster, load)


def test_power_cut_of_all_nodes_loses_nothing_that_was_acknowledged(
    can_make_disks: None, laboratory: Any, verdict: Any
) -> None:
    cluster, load = laboratory(has_disks=True)
    cluster.cut_power([0, 1, 2])
    for node in cluster.nodes:
        node.start()
    for node in cluster.nodes:
        node.wait_until_ready()
    verdict(cluster, load)


def test_what_two_nodes_acknowledged_survives_the_power_cut_of_one_and_the_absence_of_the_other(
    can_make_disks: None, laboratory: Any
) -> None:
    cluster, load = laboratory(has_disks=True)
    absent, cut, late = range(3)
    cluster.nodes[late].kill()
    load.wait_for_progress()
    cluster.cut_power([cut])
    cluster.nodes[absent].kill()
    load.stop()
    cluster.restart(cut)
    cluster.restart(late)  # it knows nothing of the writes of the last while
    cluster.wait_until_connected([cut, late])
    assert load.differences([cluster.urls[cut], cluster.urls[late]]) == []
    assert load.violations() == []
    cluster.restart(absent)
    cluster.wait_until_connected()
    assert [*load.final_state(), *load.violations()] == []


def test_full_disk_under_load_stops_the_writes_of_one_node_only(
    can_make_disks: None, laboratory: Any, verdict: Any, eventually: Any
) -> None:
    cluster, load = laboratory(has_disks=True, payload_bytes=20_000)
    cluster.disks[1].fill()
    eventually(lambda: cluster.status(1)["state"] == "read-only")
    load.wait_for_progress()
    cluster.disks[1].free()
    cluster.nodes[1].stop()
    assert cluster.nodes[1].exit_status == 0
    cluster.restart(1)
    verdict(cluster, load)


def test_disk_short_of_room_refuses_rows_and_takes_them_again_without_a_restart(
    can_make_disks: None, laboratory: Any, verdict: Any, eventually: Any
) -> None:
    cluster, load = laboratory(has_disks=True, disk_reserve_mib=16)
    process = cluster.nodes[1].pid
    cluster.disks[1].leave(free_mib=12)
    eventually(lambda: cluster.status(1)["state"] == "short of disk")
    load.wait_for_progress()
    cluster.disks[1].free()
    eventually(lambda: cluster.status(1)["state"] == "serving")
    assert cluster.nodes[1].pid == process
    verdict(cluster, load)
