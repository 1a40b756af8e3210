"""Unmodified JavaScript clients see what they see with DynamoDB."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clients.conftest import HERE, Install, Run
from clients.expected import EXPECTED

pytestmark = pytest.mark.process


@pytest.fixture(scope="session")
def node(tool: Callable[[str], str]) -> str:
    return tool("node")


@pytest.fixture(scope="session")
def packages(install: Install, tool: Callable[[str], str]) -> Path:
    npm = tool("npm")
    return install(
        "javascript",
        ["package.json", "package-lock.json"],
        lambda _: [[npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]],
    )


@pytest.mark.parametrize("client", ["client", "document"])
def test_sdk_for_javascript(run: Run, node: str, packages: Path, tmp_path: Path, client: str) -> None:
    for source in (HERE / "javascript").glob("*.mjs"):
        shutil.copy(source, tmp_path)
    (tmp_path / "node_modules").symlink_to(packages / "node_modules")
    assert run(node, f"{client}.mjs", cwd=tmp_path) == EXPECTED
