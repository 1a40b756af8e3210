"""Where the CPU time of a node goes while it serves one kind of request, drawn as a flame graph.

    make flame    # docs/flame-get.svg, docs/flame-put.svg, and the table of docs/performance.md

A node of one, pure Python so that its functions are seen, is sampled by py-spy while a load process asks. A rectangle
is a function, as wide as its share of the samples; what it called stands on it.

Source: Gregg 2016, "The Flame Graph", CACM 59(6).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import html
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from merganser.bench.compare import Tables
from merganser.bench.report import of_cluster
from merganser.bench.runner import Plan, observe
from merganser.bench.workloads import named
from merganser.model.errors import ConfigurationError
from merganser.node.local_cluster import LocalCluster

BEGIN, END = "<!-- flames: begin -->", "<!-- flames: end -->"
CONNECTIONS = 16
RATE = 200
"""Samples a second: more, and the node is held up for a good part of its time."""
SHOWN = 15
"""Functions of a table."""
_WIDTH, _ROW = 1200, 15
_LEAST_SHARE = 0.004
"""Narrower ones are not drawn."""
_CHARACTER = 6.2
"""Width of one, on average."""
_RUNNER, _LOOP = "Runner.run (asyncio/runners.py)", "the event loop, with what it reads (uvloop)"
_WAITING = "WorkerThread._run (storage/worker_thread.py)"
"""What py-spy takes for work is the lock of an empty queue."""
_FRAME = re.compile(r"(?P<name>.*) \((?P<path>.*?)(:\d+)?\)").fullmatch

Stack = tuple[str, ...]


def sampled(workload: str, *, seconds: float, items: int) -> Mapping[Stack, int]:
    """Return the stacks of a node that serves ``workload``, outermost function first, and how often each was seen.

    Raises:
        ConfigurationError: the node cannot be started, or not be looked into.
    """
    with (
        tempfile.TemporaryDirectory(prefix="merganser-flame-") as place,
        LocalCluster(Path(place) / "node", nodes=1) as cluster,
        Tables() as tables,
    ):
        subject, folded = of_cluster(cluster, "node"), Path(place) / "folded"
        plan = Plan(endpoints=(), table="", items=items, connections=CONNECTIONS, duration_s=seconds)
        plan = tables.of(subject, named(workload), plan)
        with _recording(subject.pids[0], folded, seconds):
            observe(plan, server_pids=subject.pids)
        return stacks_in(folded.read_text())


@contextlib.contextmanager
def _recording(pid: int, folded: Path, seconds: float) -> Iterator[None]:
    """Sample a process while the block runs."""
    command = ["record", "--pid", str(pid), "--format", "raw", "--output", str(folded), "--function"]
    command += ["--rate", str(RATE), "--duration", str(max(1, round(seconds)))]
    try:
        recorder = subprocess.Popen(
            [str(Path(sys.executable).with_name("py-spy")), *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise ConfigurationError(f"py-spy cannot be run, make setup installs it: {error}") from None
    try:
        yield
    finally:
        said, _ = recorder.communicate()
    if recorder.returncode or not folded.exists():
        raise ConfigurationError(f"py-spy could not look into the node: {said.decode(errors='replace').strip()}")


def stacks_in(folded: str) -> Mapping[Stack, int]:
    """Return the stacks of py-spy's raw format, from the event loop on, without threads that wait for work."""
    found: collections.Counter[Stack] = collections.Counter()
    for line in folded.splitlines():
        frames, _, count = line.rpartition(" ")
        stack = tuple(_short(frame) for frame in frames.split(";"))
        if _RUNNER in stack:
            stack = (_LOOP, *stack[stack.index(_RUNNER) + 1 :])
        if stack[-1] != _WAITING:
            found[stack] += int(count)
    return found


def _short(frame: str) -> str:
    parts = _FRAME(frame)
    if parts is None:
        return frame
    path = parts["path"].rpartition("merganser/")[2] if "merganser/" in parts["path"] else parts["path"]
    return f"{parts['name']} ({path})"


def shares(stacks: Mapping[Stack, int]) -> list[tuple[str, float, float]]:
    """Return functions with the share of samples in themselves, and with all that they called; largest first."""
    own: collections.Counter[str] = collections.Counter()
    whole: collections.Counter[str] = collections.Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for frame in set(stack):
            whole[frame] += count
    total = sum(stacks.values())
    return [(frame, count / total, whole[frame] / total) for frame, count in own.most_common()]


def svg(stacks: Mapping[Stack, int], title: str) -> str:
    """Draw a flame graph; the full name of a function shows when one points at it."""
    total = sum(stacks.values())
    boxes = list(_boxes(stacks, total))
    rows = 1 + max((depth for _, depth, _, _ in boxes), default=0)
    height = (rows + 2) * _ROW
    drawn = "\n".join(_box(frame, depth, start, share, height) for frame, depth, start, share in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="monospace" '
        f'font-size="10">\n<text x="4" y="12">{html.escape(title)}: {total:,} samples</text>\n{drawn}\n</svg>\n'
    )


def _boxes(stacks: Mapping[Stack, int], total: int) -> Iterator[tuple[str, int, float, float]]:
    """Yield the function, depth, start and width of each rectangle, as shares of all samples."""
    inside: dict[Stack, int] = collections.defaultdict(int)
    for stack, count in stacks.items():
        for depth in range(1, len(stack) + 1):
            inside[stack[:depth]] += count
    ends: dict[Stack, float] = collections.defaultdict(float)
    starts: dict[Stack, float] = {(): 0.0}
    for stack in sorted(inside):  # who calls comes before whom he calls
        above = stack[:-1]
        start = starts[above] + ends[above]
        share = inside[stack] / total
        starts[stack] = start
        ends[above] += share
        if share >= _LEAST_SHARE:
            yield stack[-1], len(stack) - 1, start, share


def _box(frame: str, depth: int, start: float, share: float, height: int) -> str:
    x, y, width = start * _WIDTH, height - (depth + 1) * _ROW, share * _WIDTH
    hue = sum(frame.rpartition("(")[2].encode()) % 60  # one colour for each file
    name = frame.partition(" (")[0]
    text = name[: int(width / _CHARACTER)] if width > 3 * _CHARACTER else ""
    return (
        f'<g><title>{html.escape(frame)} {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
        f'height="{_ROW - 1}" fill="hsl({hue},80%,70%)"/>'
        + (f'<text x="{x + 2:.1f}" y="{y + 11}">{html.escape(text)}</text>' if text else "")
        + "</g>"
    )


def markdown(found: Iterable[tuple[str, Mapping[Stack, int]]]) -> str:
    """Return a table of the functions in which most samples were, for each workload."""
    parts: list[str] = []
    for workload, stacks in found:
        parts += [f"| {workload}: function | alone | with what it calls |", "|---|---|---|"]
        parts += [f"| `{frame}` | {own:.1%} | {whole:.1%} |" for frame, own, whole in shares(stacks)[:SHOWN]]
        parts.append("")
    return "\n".join(parts)


def put_into(page: Path, table: str) -> None:
    """Write the table between the marks of the page.

    Raises:
        ConfigurationError: it has none.
    """
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ConfigurationError(f"{page} needs one line {BEGIN} and one line {END} for the table")
    page.write_text(text[: text.index(BEGIN) + len(BEGIN)] + f"\n\n{table}\n" + text[text.index(END) :])


def main() -> None:
    """Sample and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--page", default="docs/performance.md", type=Path, help="the graphs go beside it")
    parser.add_argument("--seconds", default=10.0, type=float, help="of each workload")
    given = parser.parse_args()
    try:
        found = []
        for workload in ("get", "put"):
            stacks = sampled(workload, seconds=given.seconds, items=2_000)
            found.append((workload, stacks))
            title = f"{workload}, items of 1 KB, one node, {CONNECTIONS} connections"
            (given.page.parent / f"flame-{workload}.svg").write_text(svg(stacks, title))
        put_into(given.page, markdown(found))
    except ConfigurationError as error:
        sys.exit(f"merganser: {error}")


if __name__ == "__main__":
    main()
