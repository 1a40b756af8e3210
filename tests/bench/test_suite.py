"""Sections measure real servers and end up in the page; what is not measured again stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from merganser.bench import figures, suite
from merganser.bench.compare import Line, Spread, Subject, Tables, compare
from merganser.bench.figures import BEGIN, END, Fact, Figures, Section
from merganser.bench.floors import Echo, Storage, measure_storage
from merganser.bench.goals import GOALS
from merganser.bench.plot import plot
from merganser.bench.runner import Plan, measure
from merganser.bench.workloads import named
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster

PAGE = f"# Performance\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n"


def section(title: str) -> Section:
    return Section(title, "How it was measured.", facts=(Fact("a thing", 1234.5, "ms", of_floor=2.0, note="once"),))


def test_storage_has_floors(tmp_path: Path) -> None:
    found = measure_storage(tmp_path)
    assert min(found.put_us, found.get_us, found.iterate_us, found.fsync_us) > 0


def test_floors_are_measured_and_ratios_are_of_the_same_round(tmp_path: Path) -> None:
    floor = Storage(put_us=5.0, get_us=2.0, iterate_us=1.0, fsync_us=300.0)
    with Echo() as one, Echo() as other:
        plan = Plan(endpoints=(), table="", items=100, connections=2, duration_s=0.4)
        with LocalCluster(tmp_path, nodes=1) as cluster:
            node = cluster.nodes[0]
            assert node.pid is not None
            first = Subject("a", (node.dynamodb_url,), (node.pid,))
            second = Subject("b", (node.dynamodb_url,))
            with Tables() as tables:
                lines = compare([first, second], [named("put")], plan, tables=tables, rounds=2, floor=floor)
        assert one.url != other.url
    a, b, echo = lines
    assert [line.subject for line in lines] == ["a", "b", "HTTP echo"]
    assert (a.of_first, echo.of_first, echo.of_floor) == ({}, {}, {})
    assert b.of_first.keys() == {"throughput", "p50", "p99"}, "what b's server uses is not known"
    assert a.of_floor.keys() == {"throughput", "cpu", "p50", "p99"}
    # a put's floor is an echo and an fsync: the ratio is less than that to the echo alone
    assert a.of_floor["p50"].median < a.result.all_us.p50 / min(echo.result.all_us.p50, 300.0)
    assert all(line.result.seconds == pytest.approx(0.4) for line in lines)


@pytest.mark.process
@pytest.mark.soak
def test_a_section_goes_into_the_page_and_its_json(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    figures.write(Figures({"million": section("A million"), "start": section("Old")}), tmp_path / "page.json")
    command = [
        sys.executable,
        "-m",
        "merganser.bench.suite",
        "--scale",
        "0.001",
        "--only",
        "sizes",
        "--page",
        str(page),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "get, 100 bytes, 16 connections, merganser" in ended.stdout
    text = page.read_text()
    assert text.startswith("# Performance\n\nbefore\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert text.index("### Sizes of items") < text.index("### Old") < text.index("### A million"), "in their order"
    assert "| get, 100 KB, 16 conn. | merganser | " in text
    kept = json.loads((tmp_path / "page.json").read_text())["sections"]
    assert kept.keys() == {"million", "start", "sizes"}
    lines = kept["sizes"]["lines"]
    assert {line["item_bytes"] for line in lines} == set(suite.SIZES)
    assert all(line["result"]["errors"] == 0 for line in lines)


@pytest.mark.process
@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.soak) for name in ("start", "million", "open-loop")), "anti-entropy"],
)
def test_sections_have_figures(name: str) -> None:
    told: list[str] = []
    found = suite.measure_section(name, scale=0.001, tell=told.append)
    assert told[0] == f"{name}:"
    assert all(fact.value >= 0 for fact in found.facts)
    assert bool(found.facts) is (name != "open-loop")
    assert bool(found.plot) is (name == "open-loop")
    assert figures.markdown(found).startswith(f"### {found.title}\n")
    reached = [goal for goal in GOALS if goal.measured(Figures({name: found})) is not None]
    assert len(reached) == {"open-loop": 0, "anti-entropy": 3}.get(name, 2), "goals name figures that there are"
    if name == "million":
        facts = {fact.name: fact for fact in found.facts}
        assert 0.5 < facts["on disk after compaction"].value < 100
        assert facts["scanned"].value > 0
    if name == "open-loop":
        assert [line.rate > 0 for line in found.lines] == [True] * len(suite.LOADS)


def test_a_section_that_fails_leaves_its_figures_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_run: suite.Run) -> Section:
        raise ConfigurationError("no port is free")

    page = tmp_path / "page.md"
    page.write_text(PAGE)
    figures.write(Figures({"start": section("As it was")}), tmp_path / "page.json")
    monkeypatch.setattr(suite, "SECTIONS", {"start": fail, "million": lambda _run: section("New")})
    monkeypatch.setattr(sys, "argv", ["suite", "--page", str(page)])
    with pytest.raises(SystemExit, match="not measured: start"):
        suite.main()
    assert "start is left as it was: no port is free" in capsys.readouterr().out
    kept = figures.read(tmp_path / "page.json").sections
    assert [kept[name].title for name in ("start", "million")] == ["As it was", "New"]
    assert page.read_text().index("### As it was") < page.read_text().index("### New")


def test_a_page_without_a_place_for_figures_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text in "# Nothing\n", f"{END}\n{BEGIN}\n":
        page.write_text(text)
        with pytest.raises(ConfigurationError, match="needs a line <!-- figures: begin -->"):
            figures.check_page(page)
    with pytest.raises(ConfigurationError, match="there is no page"):
        figures.check_page(tmp_path / "absent.md")


def test_figures_of_another_build_are_told(tmp_path: Path) -> None:
    (tmp_path / "page.json").write_text('{"sections": {"start": {"title": 1}}}')
    with pytest.raises(ConfigurationError, match="no figures of this build, move it away"):
        figures.read(tmp_path / "page.json")
    assert figures.read(tmp_path / "absent.json") == Figures()


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    kept = Figures({"start": section("Starting")})
    figures.write(kept, tmp_path / "page.json")
    assert figures.read(tmp_path / "page.json") == kept


def test_a_row_says_only_what_was_measured() -> None:
    with Echo() as echo:
        plan = Plan(endpoints=(echo.url,), table="t", items=10, connections=1, duration_s=0.1, workload=named("get"))
        result = measure(plan, server_pids=[])
    line = Line("it", "get", 1, 1_000, 0.0, result, of_first={"throughput": Spread(0.5, 0.51, 0.6)})
    told = figures.markdown(Section("T", "A.", (line,)))
    assert "CPU µs/op" not in told.splitlines()[6].replace("load's CPU µs/op", "")
    assert "0.51 (0.5 to 0.6)" in told


def test_a_plot_has_a_legend_and_leaves_out_what_has_no_logarithm() -> None:
    drawn = plot({"this": [(1.0, 2.0), (10.0, 200.0)], "that": [(0.0, 1.0)]}, x="in", y="out")
    assert "this" in drawn
    assert "that" not in drawn
    assert "(in)" in drawn
    assert plot({"none": [(0.0, 0.0)]}, x="in", y="out") == ""
