"""Real nodes under more load than they take: bounds hold, clients are told to come later, and nothing is lost."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from merganser.bench.overload import CAPACITY_CONNECTIONS, Report, run_overload, told
from merganser.core.admission import AdmissionLimits
from merganser.node.local_cluster import LocalCluster

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.process

WAIT_S = 20.0
LIMITS = AdmissionLimits()
MEMORY_MIB_MAX = 100.0
"""More than at capacity: 1,000 connections a node with a request each take some 30 MiB."""


def check_bounds(report: Report) -> None:
    for load in report.loads:
        assert load["most_requests_in_flight"] <= LIMITS.requests_max
        assert load["most_requests_waiting"] <= LIMITS.waiting_max
        assert load["most_operations"] <= LIMITS.operations_max
        assert load["most_served"] <= LIMITS.served_max
        assert load["most_served_bytes"] <= LIMITS.served_bytes_max
        assert (load["requests_in_flight"], load["requests_waiting"], load["operations"]) == (0, 0, 0)
    assert set(report.overload.result.faults) <= {"ThrottlingException"}, told(report)
    assert report.before.result.faults == report.after.result.faults == {}
    for before, overload in zip(report.before.memory_mib, report.overload.memory_mib, strict=True):
        assert overload - before < MEMORY_MIB_MAX, told(report)


def test_a_flood_of_clients_meets_bounds_and_throttling_only(
    cluster: LocalCluster, connect: Any, make_table: Any, read_back: Any
) -> None:
    client = connect(cluster.nodes[0].dynamodb_url)
    table = make_table(client)
    client.put_item(TableName=table, Item={"pk": {"S": "before"}, "value": {"S": "kept"}})
    report = run_overload(cluster, connections=1500, processes=3, duration_s=3.0)
    check_bounds(report)
    assert any(load["most_requests_waiting"] for load in report.loads), "it was no overload"
    client.put_item(TableName=table, Item={"pk": {"S": "after"}, "value": {"S": "kept"}})
    for node in cluster.nodes:
        assert read_back(connect(node.dynamodb_url), table) == {"before": "kept", "after": "kept"}


@pytest.mark.soak
def test_ten_times_the_load_leaves_most_of_the_goodput_and_memory_flat(cluster: LocalCluster) -> None:
    report = run_overload(cluster, connections=3000, processes=3, duration_s=20.0)
    check_bounds(report)
    assert report.overload.connections > 10 * CAPACITY_CONNECTIONS
    assert report.goodput > 0.25, told(report)
    assert report.after.result.throughput > 0.5 * report.before.result.throughput, told(report)


def test_a_put_that_no_item_can_be_as_large_as_is_refused_unread_and_a_batch_is_not(
    cluster: LocalCluster, connect: Any, make_table: Any
) -> None:
    client = connect(cluster.nodes[0].dynamodb_url)
    table = make_table(client)
    for size in 500_000, 5_000_000, 17_000_000:
        with pytest.raises(ClientError, match="Item size has exceeded the maximum allowed size"):
            client.put_item(TableName=table, Item={"pk": {"S": "a"}, "value": {"S": "x" * size}})
    with pytest.raises(ClientError) as caught:
        client.get_item(TableName=table, Key={"pk": {"S": "x" * 5_000_000}})
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    puts = [{"PutRequest": {"Item": {"pk": {"S": f"{i}"}, "value": {"S": "x" * 390_000}}}} for i in range(12)]
    assert client.batch_write_item(RequestItems={table: puts})["UnprocessedItems"] == {}


def test_connections_beyond_the_setting_are_told_to_come_later(
    tmp_path: Path, connect: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MERGANSER_CONNECTIONS_MAX", "2")
    with LocalCluster(tmp_path, nodes=1) as one, contextlib.ExitStack() as sockets:
        host, _, port = one.nodes[0].addresses["dynamodb"].rpartition(":")
        for _ in range(2):
            sockets.enter_context(socket.create_connection((host, int(port)), timeout=WAIT_S))
        with socket.create_connection((host, int(port)), timeout=WAIT_S) as third:
            told = third.makefile("rb").read()
        assert told.startswith(b"HTTP/1.1 503 ")
        assert told.endswith(b"2 connections are open; try again later\n")
        sockets.close()
        client = connect(one.nodes[0].dynamodb_url)
        eventually(lambda: serves(client))


def serves(client: DynamoDBClient) -> bool:
    try:
        return client.list_tables()["TableNames"] == []
    except ClientError:
        return False
