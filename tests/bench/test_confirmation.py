from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.soak
def test_both_clusters_are_measured() -> None:
    command = [sys.executable, "-m", "merganser.bench.confirmation"]
    size = ["--rounds", "1", "--seconds", "0.3", "--connections", "3", "--items", "100"]
    told = subprocess.run(
        [*command, *size], capture_output=True, text=True, timeout=120, check=True
    ).stdout.splitlines()
    assert [line.split(",")[1].split(":")[0].strip() for line in told] == ["asks", "believes"]
    assert all("p50" in line for line in told)
