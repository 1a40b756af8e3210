"""Which operations a measurement mixes, and how it chooses their items.

YCSB's core workloads A to F (Cooper 2010, SoCC, table 2), on DynamoDB's interface:

- a read is a GetItem that may be stale, an update a PutItem of the whole item, an insert a PutItem of a new one;
- the short ranges of E are Queries of 1 to 100 items (uniform) from a sort key on, in collections of 1,000 items, as
  DynamoDB has no order across partition keys: one that begins near the end of a collection is shorter;
- the read-modify-write of F is a consistent GetItem and then an UpdateItem, with one latency for both. (It needs a
  table with leaders.)
"""

from __future__ import annotations

import msgspec

from merganser.bench.choices import CHOICES, Choice
from merganser.bench.operations import OPERATIONS, SCAN
from merganser.model.errors import ConfigurationError


class Workload(msgspec.Struct, frozen=True):
    """What the connections do."""

    name: str
    mix: dict[str, float]
    """Share of each operation; 1 together."""
    choice: Choice = "uniform"
    is_ranged: bool = False
    """The table has a sort key."""

    @property
    def is_inserting(self) -> bool:
        """Whether the table grows."""
        return any(OPERATIONS[name].is_insert for name in self.mix)


def mixed(put_share: float, *, is_consistent: bool = False) -> Workload:
    """Return puts and gets of any items."""
    get = "consistent-get" if is_consistent else "get"
    reads = "consistent" if is_consistent else "eventual"
    if put_share in (0.0, 1.0):
        return Workload("puts only" if put_share else f"{reads} gets only", {"put" if put_share else get: 1.0})
    return Workload(f"{put_share:.0%} puts, {1 - put_share:.0%} {reads} gets", {"put": put_share, get: 1.0 - put_share})


_YCSB = (
    Workload("ycsb-a", {"get": 0.5, "put": 0.5}, "zipfian"),
    Workload("ycsb-b", {"get": 0.95, "put": 0.05}, "zipfian"),
    Workload("ycsb-c", {"get": 1.0}, "zipfian"),
    Workload("ycsb-d", {"get": 0.95, "insert": 0.05}, "latest"),
    Workload("ycsb-e", {"range": 0.95, "insert": 0.05}, "zipfian", is_ranged=True),
    Workload("ycsb-f", {"get": 0.5, "read-modify-write": 0.5}, "zipfian"),
)
_RANGED = ("page", "range")
_SINGLE = tuple(Workload(name, {name: 1.0}, is_ranged=name in _RANGED) for name in OPERATIONS)

WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in (*_SINGLE, *_YCSB)}
"""Each operation alone, with items chosen uniformly, and YCSB's mixes."""


def named(name: str, *, choice: str | None = None) -> Workload:
    """Return the workload ``name``, with items chosen as ``choice`` says, or as it says itself.

    Raises:
        ConfigurationError: there is no such workload or choice.
    """
    workload = WORKLOADS.get(name)
    if workload is None:
        raise ConfigurationError(f"--workload must be one of {', '.join(WORKLOADS)}, not {name!r}")
    return chosen(workload, choice)


def chosen(workload: Workload, choice: str | None) -> Workload:
    """Return ``workload`` with items chosen as ``choice`` says, if it says.

    Raises:
        ConfigurationError: there is no such choice, or nothing to choose.
    """
    if choice is None:
        return workload
    if choice not in CHOICES:
        raise ConfigurationError(f"--keys must be one of {', '.join(CHOICES)}, not {choice!r}")
    if SCAN in workload.mix:
        raise ConfigurationError("--keys: a scan does not choose items, it reads all of them")
    if choice == "latest" and workload.is_ranged:
        raise ConfigurationError("--keys latest: what was inserted last is not in the order of a sort key")
    return msgspec.structs.replace(workload, choice=choice)
