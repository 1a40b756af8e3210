"""Unmodified JavaScript clients see what they see with DynamoDB."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.conftest import HERE, Run
from clients.expected import EXPECTED

pytestmark = pytest.mark.process


@pytest.fixture(scope="session")
def node(tool: Callable[[str], str]) -> str:
    return tool("node")


@pytest.mark.parametrize("client", ["client", "document"])
def test_sdk_for_javascript(
    run: Run, node: str, npm_packages: Callable[[str], Path], tmp_path: Path, client: str
) -> None:
    packages = npm_packages("javascript")
    for source in (HERE / "javascript").glob("*.mjs"):
        shutil.copy(source, tmp_path)
    (tmp_path / "node_modules").symlink_to(packages)
    assert run(node, f"{client}.mjs", cwd=tmp_path) == EXPECTED
