"""Connections of the simulated network: how they break, and when their ends find out."""

from __future__ import annotations

import asyncio

import pytest

from merganser.model.errors import PeerLostError, PeerUnreachableError
from merganser.model.messages import MapIs
from merganser.sim.network import REOPENED_S, UNNOTICED_S_MAX, Conditions
from sim.test_network import B, Pair

SEEDS = 40


def test_a_reset_tells_who_waits_at_once_and_the_connection_is_open_again_some_moments_later() -> None:
    pair = Pair()

    async def script() -> None:
        pair.network.conditions = Conditions(delay_s=(0.1, 0.1))
        asked = pair.ask()
        pair.network.reset("a:1", "b:1")
        with pytest.raises(PeerLostError, match="the connection was reset"):
            await asked
        assert pair.loop.time() == 0.0
        assert not pair.a.is_reachable(B)
        with pytest.raises(PeerUnreachableError):
            await pair.ask()
        await asyncio.sleep(REOPENED_S[1])
        assert isinstance(await pair.ask(), MapIs)

    pair.loop.run(script())


def power_cut(seed: int) -> tuple[float, bool]:
    """Return after how long a request that was under way failed, and whether a new one was sent in the meantime."""
    pair = Pair(seed)
    pair.network.unnoticed_share = 0.5

    async def script() -> tuple[float, bool]:
        asked = pair.ask(timeout_s=2 * UNNOTICED_S_MAX)
        pair.b.incarnation.is_dead = True
        pair.network.detach("b:1")
        await asyncio.sleep(0.02)  # longer than any message takes
        is_unnoticed = pair.a.is_reachable(B)
        with pytest.raises(PeerLostError):
            await asked
        assert not pair.a.is_reachable(B)
        return pair.loop.time(), is_unnoticed

    return pair.loop.run(script())


def test_a_peer_that_lost_power_is_found_out_at_once_or_within_eleven_seconds() -> None:
    found = [power_cut(seed) for seed in range(SEEDS)]
    for failed_s, is_unnoticed in found:
        assert failed_s <= UNNOTICED_S_MAX if is_unnoticed else failed_s <= 0.02
    assert 0.2 * SEEDS < sum(is_unnoticed for _, is_unnoticed in found) < 0.8 * SEEDS


def test_a_peer_that_is_back_breaks_the_connections_of_its_earlier_life() -> None:
    for seed in range(SEEDS):
        pair = Pair(seed)

        async def script(pair: Pair = pair) -> None:
            asked = pair.ask(timeout_s=2 * UNNOTICED_S_MAX)
            pair.b.incarnation.is_dead = True
            pair.network.detach("b:1")
            pair.b = pair.begin(B)
            with pytest.raises(PeerLostError, match="the connection was reset"):
                await asked
            assert pair.loop.time() <= 0.02
            await asyncio.sleep(REOPENED_S[1])
            assert isinstance(await pair.ask(), MapIs)

        pair.loop.run(script())
