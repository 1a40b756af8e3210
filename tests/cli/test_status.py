"""``merganser status``: whom nodes believe alive, and where they disagree."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from merganser.cli.status import _show_leaders, _show_membership, _show_staleness


def believed(state: str, *accusers: str) -> dict[str, Any]:
    return {"state": state, "incarnation": 2, "since_s": 7.4, "accusers": list(accusers)}


def shown(*nodes: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table as the first of three nodes sees them."""
    ring = {"nodes": [{"id": name, "number": number} for number, name in enumerate("abc", start=1)]}
    screen = io.StringIO()
    _show_membership(Console(file=screen, width=80), nodes[0], ring, list(nodes))
    return [line.split() for line in screen.getvalue().splitlines()[2:]]


def node(number: int, health: int, **members: dict[str, Any]) -> dict[str, Any]:
    return {"number": number, "membership": {"incarnation": 5, "local_health": health, "members": members}}


def test_a_suspect_is_shown_with_its_accusers_and_who_sees_it_otherwise() -> None:
    rows = shown(
        node(1, 0, b=believed("suspect", "a", "c"), c=believed("alive")),
        node(2, 3, a=believed("dead"), c=believed("alive")),
        node(3, 0, a=believed("alive"), b=believed("dead")),
    )
    assert rows == [
        ["1", "itself", "5", "0", "of", "8", "dead", "to", "2"],
        ["2", "suspect", "7", "s", "2", "1", "3", "3", "of", "8", "dead", "to", "3"],
        ["3", "alive", "7", "s", "2", "0", "of", "8"],
    ]


def test_a_node_that_does_not_answer_has_no_view_of_its_own() -> None:
    rows = shown(node(1, 0, b=believed("dead"), c=believed("alive")), {"number": 2}, {"number": 3})
    assert rows[1] == ["2", "dead", "7", "s", "2"]


def test_it_is_shown_how_many_groups_each_node_leads_and_who_misses_leaders() -> None:
    def leads(number: int, led: int, unled: int) -> dict[str, Any]:
        return {"number": number, "leadership": {"groups_led": led, "groups_without_leader": unled}}

    screen = io.StringIO()
    _show_leaders(Console(file=screen, width=80), [leads(1, 80, 0), leads(2, 81, 3), {"number": 3}])
    assert screen.getvalue().splitlines() == [
        "groups led by node 1: 80, node 2: 81",
        "node 2 holds 3 groups that nobody leads",
    ]


def test_of_a_cluster_without_leaders_nothing_is_said_of_them() -> None:
    screen = io.StringIO()
    nobody = {"number": 1, "leadership": {"groups_led": 0, "groups_without_leader": 0}}
    _show_leaders(Console(file=screen, width=80), [nobody])
    assert screen.getvalue() == ""


def view(fresh: float, after_ms: float, answers: int, behind: int) -> dict[str, object]:
    return {
        "fresh_at_once": fresh,
        "visible_after_ms": {"0.9": 0.5, "0.99": after_ms, "0.999": -1.0},
        "answers": answers,
        "answers_behind": behind,
    }


def staleness_of(*staleness: dict[str, object]) -> str:
    screen = io.StringIO()
    _show_staleness(Console(file=screen, width=100), [*({"staleness": one} for one in staleness), {"number": 9}])
    return screen.getvalue()


def test_how_stale_reads_are_is_told_of_each_table_by_the_best_and_the_worst_node() -> None:
    told = staleness_of(
        {"carts": view(0.951, 3.5, 1000, 7), "log": view(1.0, 0.0, 0, 0)}, {"carts": view(0.98, 2, 500, 1)}
    )
    carts, log = told.splitlines()[2:4]
    assert carts.split() == ["carts", "95.1%", "to", "98.0%", "3.5", "ms", "8", "of", "1,500", "answers"]
    assert log.split() == ["log", "100.0%", "0.0", "ms"]


def test_a_table_that_some_replica_never_hears_of_is_never_fresh_enough() -> None:
    assert "never" in staleness_of({"t": view(0.5, -1.0, 10, 5)})


def test_of_a_cluster_that_nothing_was_written_to_nothing_is_said_of_staleness() -> None:
    assert staleness_of({}) == ""
