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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merganser.bench.connection import Asking
from merganser.bench.histogram import Histogram
from merganser.bench.operations import OPERATIONS
from merganser.bench.requests import Credentials, Signer, credentials_of
from merganser.bench.runner import Plan, Result, load, measure, observe, plan_shares
from merganser.bench.setup import create_table, drop_table
from merganser.bench.workloads import WORKLOADS, mixed, named
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
    rate=st.floats(0.0, 1e6),
)
def test_items_connections_rate_and_endpoints_are_dealt_out_whole(
    items: int, connections: int, processes: int, endpoints: int, rate: float
) -> None:
    urls = tuple(f"http://127.0.0.1:{port}" for port in range(1, endpoints + 1))
    plan = Plan(endpoints=urls, table="t", items=items, connections=connections, processes=processes, rate=rate)
    shares = plan_shares(plan)
    loaded = [item for work in shares for item in range(work.first_item, work.first_item + work.items)]
    assert loaded == list(range(items))
    assert {work.endpoint for work in shares} == set(urls)
    assert [work.place for work in shares] == list(range(len(shares)))
    dealt = [work.connections for work in shares]
    assert min(dealt) >= 1
    assert max(dealt) - min(dealt) <= 1
    numbers = [n for work in shares for n in range(work.first_connection, work.first_connection + work.connections)]
    assert numbers == list(range(max(connections, len(shares))))
    assert {work.connections_total for work in shares} == {len(numbers)}
    assert sum(work.rate for work in shares) == pytest.approx(rate)


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


def plan_for(node: LocalNode, table: str, **wanted: Any) -> Plan:
    """Return a small plan: one connection, for half a second, unless otherwise ``wanted``."""
    small = Plan(endpoints=(node.dynamodb_url,), table=table, items=50, item_bytes=100, connections=1, duration_s=0.5)
    return msgspec.structs.replace(small, **wanted)


def measured(plan: Plan, is_enough: Callable[[Result], bool]) -> Result:
    """Measure, for longer and longer, until there is enough to judge."""
    while not is_enough(result := measure(plan, server_pids=[])) and plan.duration_s < 30.0:
        plan = msgspec.structs.replace(plan, duration_s=plan.duration_s * 2, round=plan.round + 1)
    return result


def ask(address: str, *requests: bytes) -> list[tuple[int, bytes]]:
    host, _, port = address.partition(":")

    async def exchange() -> list[tuple[int, bytes]]:
        connection = await Asking(host, int(port)).open()
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
    plan = plan_for(locked_node, table, connections=3, processes=2, duration_s=0.3)
    load(plan)
    result = measure(plan, server_pids=[locked_node.pid])
    assert (result.errors, result.first_error, result.seconds, result.unanswered) == (0, "", 0.3, 0)
    assert result.operations == result.latency_us["get"].count + result.latency_us["put"].count > 0
    assert result.operations == result.all_us.count
    assert result.throughput == pytest.approx(result.operations / 0.3)
    for figures in result.latency_us.values():
        assert 0 < figures.p50 <= figures.p99 <= figures.p999
    assert result.server_cpu_us_per_operation is not None
    assert result.server_cpu_us_per_operation >= 0
    assert result.server_resident_bytes is not None
    assert result.server_resident_bytes > 2**20
    assert result.generator_cpu_us_per_operation > 0


@pytest.mark.process
def test_open_loop_offers_its_rate_and_counts_those_that_wait(locked_node: LocalNode, table: str) -> None:
    plan = plan_for(locked_node, table, rate=200.0, arrivals="even", workload=named("put"))
    load(plan)
    result = measure(plan, server_pids=[])
    assert result.errors == 0
    # whoever came within the window was answered in it, or waited at its end
    assert result.all_us.count >= 99
    assert result.all_us.count == result.operations + result.unanswered


@pytest.mark.process
def test_it_tells_when_each_operation_began_if_asked_and_counts_the_same(locked_node: LocalNode, table: str) -> None:
    plan = Plan((locked_node.dynamodb_url,), table, items=50, connections=4, duration_s=0.5, rate=200.0, is_timed=True)
    observed = observe(plan, server_pids=[])
    counted = [counted for done in observed.done for counted in done.operations.values()]
    assert sum(sum(one.durations.values()) for one in counted) == sum(len(one.times) for one in counted) > 0
    begins = [began for one in counted for began, _ in one.times]
    assert max(begins) - min(begins) < 2.0
    assert all(took > 0 for one in counted for _, took in one.times)
    untimed = observe(msgspec.structs.replace(plan, is_timed=False), server_pids=[])
    assert not any(one.times for done in untimed.done for one in done.operations.values())


@pytest.mark.process
def test_open_loop_that_asks_for_too_much_says_how_many_wait_and_how_long(locked_node: LocalNode, table: str) -> None:
    plan = plan_for(locked_node, table, rate=100_000.0, workload=named("put"))
    load(plan)
    result = measure(plan, server_pids=[])
    assert result.unanswered > result.operations
    assert result.all_us.p999 > 500_000 / 2  # those of the warm-up, which lasted as long, wait before them


@pytest.mark.process
@pytest.mark.parametrize("name", list(WORKLOADS))
def test_every_workload_runs_without_an_error(locked_node: LocalNode, credentials: None, name: str) -> None:
    workload = named(name)
    create_table(locked_node.dynamodb_url, name, is_ranged=workload.is_ranged)
    try:
        plan = plan_for(locked_node, name, items=1_500, connections=4, processes=2, duration_s=0.3, workload=workload)
        load(plan)
        result = measured(plan, lambda seen: all(latency.count for latency in seen.latency_us.values()))
    finally:
        drop_table(locked_node.dynamodb_url, name)
    assert (result.errors, result.first_error) == (0, "")
    assert {kind for kind, latency in result.latency_us.items() if latency.count} == set(workload.mix)
    is_counted = any(OPERATIONS[kind].is_counted for kind in workload.mix)
    assert bool(result.items_per_second) is is_counted
    if name == "page":
        assert result.items_per_second * result.seconds == pytest.approx(100 * result.operations)


@pytest.mark.process
@pytest.mark.parametrize("item_bytes", [10, 400_000])
def test_every_item_of_the_key_range_is_loaded(locked_node: LocalNode, table: str, item_bytes: int) -> None:
    load(Plan(endpoints=(locked_node.dynamodb_url,), table=table, items=57, item_bytes=item_bytes - 9, processes=4))
    address = locked_node.addresses["dynamodb"]
    scan = {"TableName": "bench", "ProjectionExpression": "pk"}
    found: set[str] = set()
    while scan:
        request = Signer(address, Credentials("key", "secret")).request("Scan", json.dumps(scan).encode())
        ((status, answer),) = ask(address, request)
        assert status == 200
        page = json.loads(answer)
        found |= {item["pk"]["S"] for item in page["Items"]}
        last = page.get("LastEvaluatedKey")
        scan = {**scan, "ExclusiveStartKey": last} if last else {}
    assert found == {f"item-{i}" for i in range(57)}


@pytest.mark.process
def test_errors_of_the_server_are_counted_apart_and_the_first_is_told(
    locked_node: LocalNode, credentials: None
) -> None:
    plan = Plan(endpoints=(locked_node.dynamodb_url,), table="absent", connections=1, duration_s=0.1)
    result = measure(plan, server_pids=[])
    assert result.operations == 0
    assert result.errors > 0
    assert result.faults == {"ResourceNotFoundException": result.errors}
    assert "ResourceNotFoundException" in result.first_error
    assert result.server_cpu_us_per_operation is None
    with pytest.raises(ConfigurationError, match="a load process failed: loading failed: BatchWriteItem: 400"):
        load(plan)


@pytest.mark.parametrize("task", [load, lambda plan: measure(plan, server_pids=[])])
def test_server_that_closes_in_the_middle_is_an_error_in_one_line(task: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            accepted, _ = listener.accept()
            accepted.recv(1)
            accepted.close()

        server = threading.Thread(target=hang_up)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match="a load process failed: ") as caught:
            task(Plan(endpoints=(url,), table="t", connections=1, duration_s=0.1))
        server.join()
    assert "\n" not in str(caught.value)


def test_server_that_closes_after_each_answer_and_says_so_is_asked_again_on_a_new_connection() -> None:
    is_over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve() -> None:
            while not is_over.is_set():
                try:
                    accepted, _ = listener.accept()
                except TimeoutError:
                    continue
                with accepted:
                    accepted.settimeout(30)
                    if accepted.recv(65536):
                        accepted.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")

        server = threading.Thread(target=serve)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        plan = Plan(endpoints=(url,), table="t", connections=1, duration_s=0.3, workload=mixed(0.0))
        result = measure(plan, server_pids=[])
        is_over.set()
        server.join()
    assert result.errors == 0
    assert result.operations > 1


def bench(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "merganser.cli", "bench", "--duration", "0.3", "--items", "100", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=check,
        env={**os.environ, "COLUMNS": "80"},
    )


@pytest.mark.process
def test_command_measures_a_cluster_of_its_own_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kinds = ("--replication", "leader", "--replication", "leaderless", "--rounds", "2", "--floor")
    ended = bench("--json", "--puts", "0.5", "--connections", "4", "--duration", "0.6", *kinds)
    lines: list[dict[str, Any]] = json.loads(ended.stdout)
    consistent, eventual = "50% puts, 50% consistent gets", "50% puts, 50% eventual gets"
    assert [(line["subject"], line["workload"]) for line in lines] == [
        (subject, workload) for workload in (eventual, consistent) for subject in ("leader", "leaderless", "HTTP echo")
    ]
    for line in lines:
        assert bool(line["of_first"]) is (line["subject"] == "leaderless")
        assert bool(line["of_floor"]) is (line["subject"] != "HTTP echo")
        for spread in (*line["of_first"].values(), *line["of_floor"].values()):
            assert 0 < spread["least"] <= spread["median"] <= spread["most"]
        result = line["result"]
        assert result["errors"] == 0
        assert result["operations"] > 0
        if line["subject"] != "HTTP echo":
            assert line["of_floor"].keys() == {"throughput", "cpu", "p50", "p99"}
            assert result["server_cpu_us_per_operation"] > 0
            assert result["written_bytes_per_byte"] is not None
    assert ended.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--replication", "quorum"), "--replication must be leaderless or leader, not 'quorum'"),
        (("--workload", "ycsb-g"), "--workload must be one of get, "),
        (("--workload", "get", "--keys", "hot"), "--keys must be one of uniform, zipfian, latest, not 'hot'"),
        (("--workload", "scan", "--keys", "zipfian"), "--keys: a scan does not choose items"),
        (("--workload", "page", "--keys", "latest"), "--keys latest: what was inserted last"),
        (("--rate", "5", "--arrivals", "bursts"), "--arrivals must be poisson or even, not 'bursts'"),
        (("--compare", "http://127.0.0.1:1"), "--compare must be NAME=URL[,URL][@PID[,PID]], not "),
        (("--compare", "a=http://127.0.0.1:1", "--compare", "a=http://127.0.0.1:2"), "--compare needs a name for each"),
        (("--compare", "a=ftp://127.0.0.1:1"), "--endpoint must be http://HOST:PORT, not 'ftp://127.0.0.1:1'"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(arguments: tuple[str, ...], message: str) -> None:
    ended = bench(*arguments, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"merganser: {message}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.process
def test_command_prints_a_table_that_fits_and_drops_its_own(locked_node: LocalNode, credentials: None) -> None:
    other = f"again={locked_node.dynamodb_url}@{locked_node.pid}"
    target = ("--endpoint", locked_node.dynamodb_url, "--pid", str(locked_node.pid), "--compare", other)
    ended = bench(*target, "--puts", "1", "--plot", "--rounds", "1")
    assert "again: puts only" in ended.stdout
    assert "times the first" in ended.stdout
    assert "one in so many" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80
    address = locked_node.addresses["dynamodb"]
    request = Signer(address, Credentials("key", "secret")).request("ListTables", b"{}")
    assert ask(address, request) == [(200, b'{"TableNames":[]}')]
