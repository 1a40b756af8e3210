"""The figures of `suite`, as they are kept in JSON, and as the tables of a page in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from merganser.bench.compare import Line, Spread
from merganser.bench.floors import Storage
from merganser.bench.processes import MIB
from merganser.model.errors import ConfigurationError

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


class Fact(msgspec.Struct, frozen=True):
    """A figure that has a row of its own."""

    name: str
    value: float
    unit: str
    of_floor: float | None = None
    """How many times its floor; None: it has none."""
    note: str = ""


class Section(msgspec.Struct, frozen=True):
    """What one part of the suite measured."""

    title: str
    about: str
    """How, in a sentence or two."""
    lines: tuple[Line, ...] = ()
    facts: tuple[Fact, ...] = ()
    plot: str = ""
    floor: Storage | None = None
    taken: str = ""
    """When, in UTC."""
    machine: str = ""
    load: float = 0.0
    """Average number of processes that wanted to run in the minute before it began: the work of others."""
    seconds: float = 0.0
    """That it took."""
    scale: float = 1.0
    """Of times and numbers of items; below 1 it was a short run."""


class Figures(msgspec.Struct, frozen=True):
    """All of them, by the name of the section."""

    sections: dict[str, Section] = {}


def read(path: Path) -> Figures:
    """Return what ``path`` has; nothing if it is not there.

    Raises:
        ConfigurationError: it has something else.
    """
    if not path.exists():
        return Figures()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Figures)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(f"{path} has no figures of this build, move it away: {error}") from None


def write(figures: Figures, path: Path) -> None:
    """Write ``path`` anew: a line for each section."""
    rows = [msgspec.json.encode(name) + b":" + msgspec.json.encode(one) for name, one in figures.sections.items()]
    path.write_bytes(b'{"sections":{\n' + b",\n".join(rows) + b"\n}}\n")


def check_page(path: Path) -> None:
    """Find the place for the tables in a page.

    Raises:
        ConfigurationError: it has none, or there is no page.
    """
    if not path.is_file():
        raise ConfigurationError(f"there is no page {path} to put the figures into")
    text = path.read_text()
    if not (text.count(BEGIN) == text.count(END) == 1 and text.index(BEGIN) < text.index(END)):
        raise ConfigurationError(f"{path} needs a line {BEGIN} and after it a line {END}, for the tables between them")


def put_into_page(figures: Figures, order: Sequence[str], path: Path, *, opening: str) -> None:
    """Put ``opening`` and the tables between the two marks in a page, in that ``order``; raises as `check_page`."""
    check_page(path)
    before, _, rest = path.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n\n".join(markdown(figures.sections[name]) for name in order if name in figures.sections)
    path.write_text(f"{before}{BEGIN}\n\n{opening}\n\n{tables}\n\n{END}{after}")


def markdown(section: Section) -> str:
    """Return a section of a page."""
    shortened = f"; a short run, {section.scale:g} of the usual times and numbers of items" if section.scale < 1 else ""
    parts = [
        f"### {section.title}",
        section.about,
        f"{section.taken}, {section.machine}, load {section.load:.1f} before it began; "
        f"took {section.seconds:.0f} s{shortened}."
        + (f" Floors: {section.floor.told()}." if section.floor is not None else ""),
    ]
    if section.lines:
        parts.append("\n".join(_rows_of(section.lines)))
    if section.facts:
        parts.append("\n".join(_rows_of_facts(section.facts)))
    if section.plot:
        parts.append("```\n" + re.sub(r"[ \u2800]+$", "", section.plot, flags=re.MULTILINE) + "\n```")
    return "\n\n".join(parts)


_COLUMNS = (
    "workload",
    "server",
    "ops/s",
    "p50, p99, p99.9 ms",
    "CPU µs/op",
    "CPU × floor",
    "p50 × floor",
    "ops/s × floor",
    "ops/s × first",
    "CPU × first",
    "load's CPU µs/op",
    "MiB",
    "written/B",
)


def _rows_of(lines: Sequence[Line]) -> Iterator[str]:
    rows = [_row(line) for line in lines]
    kept = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    yield "| " + " | ".join(_COLUMNS[place] for place in kept) + " |"
    yield "|" + "---|" * len(kept)
    for row in rows:
        yield "| " + " | ".join(row[place] for place in kept) + " |"


def _row(line: Line) -> list[str]:
    result = line.result
    latency = result.all_us
    errors = f", {result.errors:,} errors ({', '.join(result.faults)})" if result.errors else ""
    items = f" ({result.items_per_second:,.0f} items/s)" if result.items_per_second else ""
    return [
        f"{line.workload}, {_bytes(line.item_bytes)}, {line.connections} conn."
        + (f", {line.rate:,.0f}/s offered" if line.rate else ""),
        line.subject,
        f"{result.throughput:,.0f}{items}{errors}",
        ", ".join(f"{us / 1000:.2f}" for us in (latency.p50, latency.p99, latency.p999)) if latency.count else "",
        "" if result.server_cpu_us_per_operation is None else f"{result.server_cpu_us_per_operation:.0f}",
        *(_median(line.of_floor, name) for name in ("cpu", "p50", "throughput")),
        *(_spread(line.of_first, name) for name in ("throughput", "cpu")),
        f"{result.generator_cpu_us_per_operation:.0f}",
        "" if result.server_resident_bytes is None else f"{result.server_resident_bytes / MIB:.0f}",
        "" if result.written_bytes_per_byte is None else f"{result.written_bytes_per_byte:.2f}",
    ]


def _median(ratios: dict[str, Spread], name: str) -> str:
    return number(ratios[name].median) if name in ratios else ""


def _spread(ratios: dict[str, Spread], name: str) -> str:
    if name not in ratios:
        return ""
    least, median, most = (number(value) for value in (ratios[name].least, ratios[name].median, ratios[name].most))
    return median if least == most else f"{median} ({least} to {most})"


def _bytes(count: int) -> str:
    return f"{count / 1000:g} KB" if count >= 1000 else f"{count} B"


def _rows_of_facts(facts: Sequence[Fact]) -> Iterator[str]:
    yield "| | | × floor | |"
    yield "|---|---|---|---|"
    for fact in facts:
        floor = "" if fact.of_floor is None else number(fact.of_floor)
        yield f"| {fact.name} | {number(fact.value)} {fact.unit} | {floor} | {fact.note} |"


def number(value: float) -> str:
    """Return it with three digits that count, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
