"""The demo's verdict: good only when all is well, and its eye for what is lost or different."""

from __future__ import annotations

import importlib
import io
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from rich.console import Console


@pytest.fixture(scope="module")
def demo() -> Any:
    return importlib.import_module("demo.__main__")


@pytest.fixture(scope="module")
def clients() -> Any:
    return importlib.import_module("demo.clients")


@pytest.fixture(scope="module")
def workers() -> Any:
    return importlib.import_module("demo.workers")


@pytest.fixture(scope="module")
def cities() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = importlib.import_module("demo.cities").cities()
    return found


def keyed(items: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(item["country"]["S"], item["id"]["N"]): item for item in items}


@pytest.fixture
def verdict(demo: Any, workers: Any, cities: Any) -> Any:
    """Return exit status and text for a load of ten items of which so many were acknowledged."""

    def report(
        *,
        acks: int = 10,
        errors: list[str] | None = None,
        wrong: list[str] | None = None,
        items: int = 10,
        faults: int = 2,
        visits: int = 4,
        problem: str = "",
    ) -> tuple[int, str]:
        written = [
            workers.Written(puts=[(float(i), 0.001) for i in range(acks)][part::2], errors=errors or [])
            for part in (0, 1)
        ]
        screen = io.StringIO()
        happened = [demo.Fault("while it rained", 2.5, 3.0), demo.Fault("while it snowed", 8.9, 9.5)][:faults]
        wrote = workers.Visits(0, acknowledged=list(range(visits)), moments=[float(i) for i in range(visits)])
        reshaped = demo.Reshaped(visits=[wrote], problem=problem)
        status = demo.report(Console(file=screen, width=80), cities[:items], written, happened, reshaped, wrong or [])
        return status, screen.getvalue()

    return report


def test_verdict_is_good_when_everything_was_acknowledged_and_read_back(verdict: Any) -> None:
    status, text = verdict()
    assert status == 0
    assert "verdict: nothing lost" in text
    assert "10 of 10" in text
    assert text.count("1000 ms") == 3  # the longest time without an acknowledged put, and that of each fault


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({"wrong": ["Paris is lost at http://x"]}, "1 findings on reading back"),
        ({"errors": ["put of Paris: [Errno 1]"]}, "clients saw 2 errors"),
        ({"acks": 9}, "9 of 10 items were acknowledged"),
        ({"acks": 11}, "11 of 10 items were acknowledged"),
        ({"acks": 0}, "0 of 10 items were acknowledged"),
        ({"acks": 0, "items": 0}, "there was nothing to write"),
        ({"visits": 0}, "nothing was written while the cluster changed"),
        ({"problem": "leave 4 5 was cancelled"}, "leave 4 5 was cancelled"),
        ({"faults": 1}, "1 of 2 faults were brought about"),
    ],
)
def test_verdict_is_bad_and_says_why(verdict: Any, outcome: dict[str, Any], reason: str) -> None:
    status, text = verdict(**outcome)
    assert status == 1
    assert "verdict: FAILED" in text
    assert reason in text.replace("\n", " ")
    for sentence in outcome.get("wrong", outcome.get("errors", [])):
        assert sentence in text


def test_item_that_is_missing_or_different_is_found(workers: Any, cities: Any) -> None:
    items = cities[:3]
    assert workers.differences("n", items, keyed(items)) == []
    (lost,) = workers.differences("n", items, keyed(items[:2]))
    assert lost == f"{items[2]['name']['S']} is lost at n"
    changed = {**items[0], "population": {"N": "1"}}
    (different,) = workers.differences("n", items, keyed([changed, *items[1:]]))
    assert different.startswith(f"{items[0]['name']['S']} differs at n")
    without = {name: value for name, value in items[0].items() if name != "timezone"}
    assert len(workers.differences("n", items, keyed([without, *items[1:]]))) == 1


def test_order_of_a_set_and_form_of_a_number_are_no_differences(workers: Any, cities: Any) -> None:
    item = next(item for item in cities if len(item.get("names", {"SS": []})["SS"]) > 1)
    other = {**item, "names": {"SS": item["names"]["SS"][::-1]}, "population": {"N": item["population"]["N"] + ".0"}}
    assert workers.differences("n", [item], keyed([other])) == []


def test_items_that_were_not_acknowledged_are_not_looked_for(demo: Any, workers: Any, cities: Any) -> None:
    missed = {name: cities[1][name] for name in ("country", "id")}
    written = [workers.Written(), workers.Written(unacknowledged=[missed])]
    assert demo._acknowledged(cities[:3], written) == [cities[0], cities[2]]


def test_every_city_has_a_key_of_its_own(cities: Any) -> None:
    assert len(keyed(cities)) == len(cities) > 10_000


def answer(status: int) -> tuple[Any, dict[str, Any]]:
    headers: Any = {}
    return AWSResponse("", status, headers, None), {}


def attempts(balancer: Any, count: int) -> list[str]:
    hosts = []
    for _ in range(count):
        request = AWSRequest("POST", "http://first:1/path")
        balancer.use_next(request)
        hosts.append(str(request.url))
    return hosts


def test_clients_go_round_all_nodes_and_set_one_that_failed_aside(
    clients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(clients.time, "monotonic", lambda: now)
    balancer = clients.Balancer(["a:1", "b:1", "c:1"])
    assert attempts(balancer, 4) == ["http://a:1/path", "http://b:1/path", "http://c:1/path", "http://a:1/path"]
    balancer.note_failure(response=None, caught_exception=OSError())  # a
    assert attempts(balancer, 3) == ["http://b:1/path", "http://c:1/path", "http://b:1/path"]
    balancer.note_failure(response=answer(503), caught_exception=None)  # b
    assert attempts(balancer, 2) == ["http://c:1/path", "http://c:1/path"]
    balancer.note_failure(response=answer(503), caught_exception=None)  # c
    assert len(attempts(balancer, 1)) == 1  # all have failed: it tries all the same
    now = clients.ASIDE_S
    assert sorted(attempts(balancer, 3)) == ["http://a:1/path", "http://b:1/path", "http://c:1/path"]


def test_clients_keep_to_a_node_whose_answer_was_the_clients_own_fault(clients: Any) -> None:
    balancer = clients.Balancer(["a:1"])
    for status in (200, 400):
        balancer.note_failure(response=answer(status), caught_exception=None)
    assert balancer._aside_until == {"a:1": 0.0}
