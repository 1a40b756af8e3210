from __future__ import annotations

from collections.abc import Iterator

import pytest

from wire.dynamodb.fakes import Cluster


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
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
