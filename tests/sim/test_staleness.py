"""What is predicted of stale reads from measured latencies is what happens."""

from __future__ import annotations

import asyncio
import random

import pytest

from merganser.core import staleness
from merganser.model.consistency import ReadQuorums, WriteQuorums
from merganser.model.row import CellWrite, Mutation
from merganser.service.staleness import measured
from merganser.sim.world import World
from service.plays import CELL, TIMEOUT_S, key_of, member, now_s, play, started

ROUNDS = 200
AFTER_S = (0.0, 0.002, 0.005, 0.009)
WITHIN = 0.1
"""Of a probability: three standard deviations of so many rounds at one half."""


@pytest.mark.parametrize(("r", "w", "machines"), [(1, 1, 5), (2, 1, 5), (1, 1, 3)])
def test_reads_miss_writes_as_often_as_was_predicted_from_what_nodes_measured(r: int, w: int, machines: int) -> None:
    async def script(world: World) -> None:
        for machine in world.machines:
            machine.probe_s = 0.1
            machine.skew_us = world.rng.randrange(-2_000_000, 2_000_000)
        table = await started(world)
        rng, fresh = random.Random(7), dict.fromkeys(AFTER_S, 0)
        for number in range(ROUNDS * len(AFTER_S)):
            after_s, key, value = AFTER_S[number % len(AFTER_S)], key_of(table, b"k%d" % number), b"%d" % number
            writer, reader = (member(rng.choice(world.machines)) for _ in range(2))
            mutation = Mutation((CellWrite(CELL, value),))
            await writer.coordinator.write(
                table, key, mutation, level=WriteQuorums(w=w, pw=w), deadline=now_s() + TIMEOUT_S
            )
            await asyncio.sleep(after_s)
            row = await reader.coordinator.read(table, key, level=ReadQuorums(r=r, pr=r), deadline=now_s() + TIMEOUT_S)
            fresh[after_s] += row is not None
        told = [member(machine).coordinator.staleness.told(table.id) for machine in world.machines]
        predicted = staleness.predict(measured(told), n=3, r=r, w=w, draw=rng.random)
        curve = {after_s: (predicted.fresh(after_s), fresh[after_s] / ROUNDS) for after_s in AFTER_S}
        assert all(abs(expected - seen) <= WITHIN for expected, seen in curve.values()), curve
        assert min(seen for _, seen in curve.values()) < 1.0, "there was something to predict"

    play(script, machines=machines)
