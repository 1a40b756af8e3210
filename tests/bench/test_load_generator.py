"""The load generator: its figures are right, its load is dealt out whole, its requests are those of an SDK."""

from __future__ import annotations

import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.bench.connection import Connection
from merganser.bench.histogram import Histogram
from merganser.bench.requests import Credentials, Signer, credentials_of
from merganser.bench.runner import Plan, load, measure, plan_shares
from merganser.bench.setup import create_table, drop_table
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster, LocalNode

durations = st.lists(st.floats(1.0, 1e8), min_size=1, max_size=200)


def histogram(values: list[float]) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


@given(durations, st.sampled_from([0.001, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_percentile_is_within_one_percent_of_the_exact_one(values: list[float], share: float) -> None:
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    assert histogram(values).percentile(share) == pytest.approx(exact, rel=0.01)


@given(durations, durations)
def test_merged_histograms_are_the_histogram_of_all(left: list[float], right: list[float]) -> None:
    merged = histogram(left)
    merged.merge(Histogram(dict(histogram(right).counts)))
    assert merged.counts == histogram(left + right).counts
    assert merged.total == len(left) + len(right)


def test_histogram_of_nothing_has_no_percentiles() -> None:
    assert Histogram().percentile(0.99) == 0.0


def test_durations_below_a_microsecond_count_as_one() -> None:
    assert histogram([0.0, 0.5]).percentile(1.0) == pytest.approx(1.0, rel=0.01)


@given(
    items=st.integers(1, 1_000),
    connections=st.integers(1, 100),
    processes=st.integers(1, 20),
    endpoints=st.integers(1, 5),
)
def test_items_connections_and_endpoints_are_dealt_out_whole(
    items: int, connections: int, processes: int, endpoints: int
) -> None:
    urls = tuple(f"http://127.0.0.1:{port}" for port in range(1, endpoints + 1))
    plan = Plan(endpoints=urls, table="t", items=items, connections=connections, processes=processes)
    shares = plan_shares(plan)
    loaded = [item for work in shares for item in range(work.first_item, work.first_item + work.items)]
    assert loaded == list(range(items))
    assert {work.endpoint for work in shares} == set(urls)
    assert len({work.seed for work in shares}) == len(shares)
    dealt = [work.connections for work in shares]
    assert min(dealt) >= 1
    assert max(dealt) - min(dealt) <= 1
    assert sum(dealt) == max(connections, len(shares))


def test_credentials_are_those_that_the_tools_of_aws_would_use() -> None:
    assert credentials_of({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}) == Credentials("a", "b")
    assert credentials_of({"AWS_ACCESS_KEY_ID": "a"}) == Credentials()


@pytest.fixture(scope="module")
def locked_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNode]:
    """A node that checks signatures."""
    keys = pytest.MonkeyPatch()
    keys.setenv("MERGANSER_ACCESS_KEYS", "key:secret")
    with LocalCluster(tmp_path_factory.mktemp("locked"), nodes=1) as cluster:
        keys.undo()
        yield cluster.nodes[0]


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture
def table(locked_node: LocalNode, credentials: None) -> Iterator[str]:
    create_table(locked_node.dynamodb_url, "bench")
    yield "bench"
    drop_table(locked_node.dynamodb_url, "bench")


def ask(address: str, *requests: bytes) -> list[tuple[int, bytes]]:
    host, _, port = address.partition(":")

    async def exchange() -> list[tuple[int, bytes]]:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, host, int(port))
        try:
            return [await connection.ask(request) for request in requests]
        finally:
            connection.close()

    return asyncio.run(exchange())


@pytest.mark.process
def test_signed_requests_are_accepted_where_signatures_are_checked(locked_node: LocalNode) -> None:
    address = locked_node.addresses["dynamodb"]
    right, wrong = (Signer(address, Credentials("key", secret)) for secret in ("secret", "guess"))
    good, bad, again = ask(address, *(signer.request("ListTables", b"{}") for signer in (right, wrong, right)))
    assert good == again == (200, b'{"TableNames":[]}')
    assert bad[0] == 400
    assert b"InvalidSignatureException" in bad[1]


@pytest.mark.process
def test_measurement_counts_what_the_server_did_and_nothing_else(locked_node: LocalNode, table: str) -> None:
    assert locked_node.pid is not None
    plan = Plan(
        endpoints=(locked_node.dynamodb_url,),
        table=table,
        items=50,
        item_bytes=100,
        connections=3,
        processes=2,
        duration_s=0.3,
    )
    load(plan)
    result = measure(plan, server_pids=[locked_node.pid])
    assert (result.errors, result.first_error, result.seconds) == (0, "", 0.3)
    assert result.operations == result.latency_us["get"]["count"] + result.latency_us["put"]["count"] > 0
    assert result.throughput == pytest.approx(result.operations / 0.3)
    for kind in ("get", "put"):
        figures = result.latency_us[kind]
        assert 0 < figures["p50"] <= figures["p99"] <= figures["p99.9"]
    assert result.server_cpu_us_per_operation is not None
    assert result.server_cpu_us_per_operation >= 0


@pytest.mark.process
def test_every_item_of_the_key_range_is_loaded(locked_node: LocalNode, table: str) -> None:
    load(Plan(endpoints=(locked_node.dynamodb_url,), table=table, items=57, item_bytes=10, processes=4))
    address = locked_node.addresses["dynamodb"]
    request = Signer(address, Credentials("key", "secret")).request("Scan", b'{"TableName":"bench"}')
    ((status, answer),) = ask(address, request)
    assert status == 200
    assert {item["pk"]["S"] for item in json.loads(answer)["Items"]} == {f"item-{i}" for i in range(57)}


@pytest.mark.process
def test_errors_of_the_server_are_counted_apart_and_the_first_is_told(
    locked_node: LocalNode, credentials: None
) -> None:
    plan = Plan(endpoints=(locked_node.dynamodb_url,), table="absent", connections=1, duration_s=0.1)
    result = measure(plan, server_pids=[])
    assert result.operations == 0
    assert result.errors > 0
    assert "ResourceNotFoundException" in result.first_error
    assert result.server_cpu_us_per_operation is None
    with pytest.raises(ConfigurationError, match="a load process failed: loading failed: PutItem: 400"):
        load(plan)


def test_server_that_closes_in_the_middle_is_an_error_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            accepted, _ = listener.accept()
            accepted.recv(1)
            accepted.close()

        server = threading.Thread(target=hang_up)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match="a load process failed: ") as caught:
            load(Plan(endpoints=(url,), table="t", connections=1))
        server.join()
    assert "\n" not in str(caught.value)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "merganser.cli", "bench", "--duration", "0.3", "--items", "100", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )


@pytest.mark.process
def test_command_measures_a_cluster_of_its_own_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kinds = ("--replication", "leader", "--replication", "leaderless", "--rounds", "2")
    ended = bench("--json", "--puts", "0.5", "--connections", "4", *kinds)
    mixes: list[dict[str, Any]] = json.loads(ended.stdout)
    assert [(mix["replication"], mix["put_share"], mix["is_consistent"]) for mix in mixes] == [
        ("leader", 0.5, False),
        ("leaderless", 0.5, False),
        ("leader", 0.5, True),
        ("leaderless", 0.5, True),
    ]
    for mix in mixes:
        if mix["replication"] == "leader":
            assert mix["cpu_ratio"] is None
        else:
            least, median, most = mix["cpu_ratio"]
            assert 0 < least <= median <= most
    for mix in mixes:
        result = mix["result"]
        assert result["errors"] == 0
        assert result["operations"] > 0
        assert result["server_cpu_us_per_operation"] > 0
    assert ended.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_kind_of_table_that_there_is_not_is_refused() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "merganser.cli", "bench", "--replication", "quorum"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == "merganser: --replication must be leaderless or leader, not 'quorum'\n"


@pytest.mark.process
def test_command_prints_a_table_that_fits_and_drops_its_own(locked_node: LocalNode, credentials: None) -> None:
    ended = bench("--endpoint", locked_node.dynamodb_url, "--pid", str(locked_node.pid), "--puts", "1")
    assert "puts only" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80
    address = locked_node.addresses["dynamodb"]
    request = Signer(address, Credentials("key", "secret")).request("ListTables", b"{}")
    assert ask(address, request) == [(200, b'{"TableNames":[]}')]
