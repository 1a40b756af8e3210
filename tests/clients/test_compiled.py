"""Unmodified clients in Go and Java see what they see with DynamoDB. To fetch and compile them takes minutes, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clients.conftest import Install, Run
from clients.expected import EXPECTED

pytestmark = [pytest.mark.process, pytest.mark.clients]


def test_sdk_for_go(run: Run, install: Install, tool: Callable[[str], str]) -> None:
    go = tool("go")
    built = install("go", ["main.go", "go.mod", "go.sum"], lambda _: [[go, "build", "-mod=readonly", "-o", "client"]])
    assert run(str(built / "client")) == EXPECTED


def test_sdk_for_java(run: Run, install: Install, tool: Callable[[str], str]) -> None:
    java, javac, mvn = tool("java"), tool("javac"), tool("mvn")

    def commands(draft: Path) -> list[list[str]]:
        copy = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
        return [
            [mvn, "--batch-mode", "--quiet", copy, f"-DoutputDirectory={draft / 'lib'}"],
            [javac, "-cp", "lib/*", "-d", "classes", "Scenarios.java"],
        ]

    built = install("java", ["Scenarios.java", "pom.xml"], commands)
    assert (
        run(java, "-XX:TieredStopAtLevel=1", "-cp", f"{built / 'classes'}:{built / 'lib'}/*", "Scenarios") == EXPECTED
    )
