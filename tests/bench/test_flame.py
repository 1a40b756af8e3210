"""Flame graphs are as wide as the samples, and nothing in them is lost or counted twice."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from merganser.bench import flame
from merganser.model.errors import ConfigurationError

RUNNER = "main (merganser/cli/main.py:3);Runner.run (asyncio/runners.py:118)"
WORKER = "_bootstrap (threading.py:1);WorkerThread._run (merganser/storage/worker_thread.py:70)"
FOLDED = f"""{RUNNER};turn (/somewhere/merganser/net/http.py:9);call (merganser/wire/operations.py:4) 30
{RUNNER};turn (merganser/net/http.py:9) 10
{RUNNER} 40
{WORKER} 500
{WORKER};flush <C> (merganser/storage/rocks.py:5) 20
"""
SVG = "{http://www.w3.org/2000/svg}"


def test_stacks_begin_with_the_event_loop_and_leave_out_who_waits() -> None:
    stacks = flame.stacks_in(FOLDED)
    assert sum(stacks.values()) == 100
    turn, call = "turn (net/http.py)", "call (wire/operations.py)"
    assert {stack[1:]: count for stack, count in stacks.items() if "event loop" in stack[0]} == {
        (turn, call): 30,
        (turn,): 10,
        (): 40,
    }


def test_shares_are_of_all_samples() -> None:
    found = {frame.partition(" ")[0]: (own, whole) for frame, own, whole in flame.shares(flame.stacks_in(FOLDED))}
    assert found["call"] == (0.3, 0.3)
    assert found["turn"] == (0.1, 0.4)
    assert found["the"] == (0.4, 0.8)
    assert sum(own for own, _ in found.values()) == pytest.approx(1.0)


def test_a_graph_has_each_function_on_whoever_called_it() -> None:
    drawn = ElementTree.fromstring(flame.svg(flame.stacks_in(FOLDED), "a <title>"))
    boxes: dict[str, tuple[float, float, float]] = {}
    for group in drawn.iter(f"{SVG}g"):
        title, box = group.find(f"{SVG}title"), group.find(f"{SVG}rect")
        assert title is not None
        assert title.text is not None
        assert box is not None
        boxes[title.text.partition(" ")[0]] = (
            float(box.attrib["x"]),
            float(box.attrib["y"]),
            float(box.attrib["width"]),
        )
    widest = float(drawn.attrib["width"])
    assert {name: width / widest for name, (_, _, width) in boxes.items()} == pytest.approx(
        {"the": 0.8, "turn": 0.4, "call": 0.3, "_bootstrap": 0.2, "WorkerThread._run": 0.2, "flush": 0.2}
    )
    for inner, outer in (("turn", "the"), ("call", "turn"), ("flush", "WorkerThread._run")):
        assert boxes[inner][1] < boxes[outer][1], "above"
        assert boxes[outer][0] <= boxes[inner][0] < boxes[outer][0] + boxes[outer][2]


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{flame.BEGIN}\nold\n{flame.END}\nafter\n")
    flame.put_into(page, flame.markdown([("get", flame.stacks_in(FOLDED))]))
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| `call (wire/operations.py)` | 30.0% | 30.0% |" in text
    page.write_text("no marks")
    with pytest.raises(ConfigurationError, match="needs one line"):
        flame.put_into(page, "")


@pytest.mark.process
@pytest.mark.soak
def test_a_node_is_sampled_while_it_serves() -> None:
    stacks = flame.sampled("get", seconds=1.0, items=100)
    assert any(re.match(r"get_item \(wire/dynamodb/reads", frame) for stack in stacks for frame in stack)
