"""What a client saves by asking a replica itself, on the simulated network, where time is virtual."""

from __future__ import annotations

from merganser.bench.coordination import Plan, simulated, told


def test_a_client_that_asks_a_replica_saves_a_hop() -> None:
    found = simulated(Plan(keys=10, at_once=2, turns=2, turn_s=1.0, consistency="ONE"), nodes=9)
    ours, others = found["replica"], found["any"]
    assert ours.failed == others.failed == 0
    assert min(ours.reads.total, others.writes.total) > 50
    assert ours.reads.percentile(0.5) < others.reads.percentile(0.5)
    lines = told(found)
    assert lines[0].split() == ["read", "p50", "read", "p99", "write", "p50", "write", "p99"]
    assert lines[1].startswith("by a replica")
    assert "0 failed" in lines[2]
    assert lines[3].startswith("saved")
