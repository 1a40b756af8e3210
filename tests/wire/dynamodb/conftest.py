from __future__ import annotations

from collections.abc import Iterator

import pytest

from wire.dynamodb.fakes import Cluster


def stocked(*, is_leaderless: bool) -> Iterator[Cluster]:
    """Yield a cluster with a table of each kind of key."""
    cluster = Cluster(is_leaderless=is_leaderless)
    for name, partition, sort in (
        ("str", "S", None),
        ("num", "N", None),
        ("bin", "B", None),
        ("tss", "S", "S"),
        ("tsn", "S", "N"),
        ("tsb", "S", "B"),
    ):
        cluster.create(name, partition, sort)
    yield cluster
    cluster.close()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster of leader-based tables."""
    yield from stocked(is_leaderless=False)


@pytest.fixture
def leaderless() -> Iterator[Cluster]:
    """A cluster of leaderless tables."""
    yield from stocked(is_leaderless=True)


@pytest.fixture(params=["leader", "leaderless"])
def either(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of the one and one of the other."""
    yield from stocked(is_leaderless=request.param == "leaderless")
