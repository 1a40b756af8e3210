"""The wheel: pure Python or compiled, installed apart from the sources, serving boto3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import urllib.request
import venv
import zipfile
from pathlib import Path

import boto3
import pytest

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[2]
NO_COMPILER = {"CC": "/nowhere/cc"}


def build(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Build a wheel into ``directory`` with what this environment has."""
    command = ["pip", "wheel", "--verbose", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    inherited = {name: value for name, value in os.environ.items() if name != "MERGANSER_PURE"}
    return subprocess.run(
        [sys.executable, "-m", *command, "--wheel-dir", str(directory), str(ROOT)],
        env={**inherited, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def wheel_in(directory: Path) -> Path:
    """Return the one wheel there is."""
    (wheel,) = directory.glob("merganser-*.whl")
    return wheel


def installed(wheel: Path, directory: Path) -> Path:
    """Install the wheel alone, beside the packages that this environment has; returns the directory of commands."""
    venv.create(directory)
    packages = sysconfig.get_path("purelib", vars={"base": str(directory), "platbase": str(directory)})
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    python = directory / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, wheel], check=True)
    # not what is in a .pth of theirs, such as the sources
    others = [f"{path}\n" for path in sys.path if Path(path).name == Path(packages).name]
    (Path(packages) / "others.pth").write_text("".join(others))
    return directory / "bin"


def assert_serves(commands: Path, build: str) -> None:
    """Put and get through boto3, and see which build answers."""
    version = subprocess.run([commands / "merganser", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.endswith(f" ({build})\n")
    with subprocess.Popen(
        [commands / "merganser", "serve", "--ephemeral", "--port", "0", "--stop-with-stdin"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as node:
        assert node.stderr is not None
        ready = json.loads(node.stderr.readline())
        assert ready["event"] == "ready"
        with urllib.request.urlopen(f"http://{ready['admin']}/status") as answer:
            assert json.load(answer)["build"] == build
        table = boto3.resource(
            "dynamodb",
            endpoint_url=f"http://{ready['dynamodb']}",
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
        ).create_table(
            TableName="ducks",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "species", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "species", "KeyType": "HASH"}],
        )
        table.put_item(Item={"species": "merganser", "diet": {"fish"}})
        assert table.get_item(Key={"species": "merganser"}, ConsistentRead=True)["Item"]["diet"] == {"fish"}
        node.communicate()
    assert node.returncode == 0


def test_pure_wheel_serves(tmp_path: Path) -> None:
    built = build(tmp_path, MERGANSER_PURE="1")
    assert built.returncode == 0, built.stdout
    assert wheel_in(tmp_path).name.endswith("-py3-none-any.whl")
    assert_serves(installed(wheel_in(tmp_path), tmp_path / "installed"), "pure Python")


def test_without_a_compiler_the_wheel_is_pure_and_says_why(tmp_path: Path) -> None:
    built = build(tmp_path, **NO_COMPILER)
    assert built.returncode == 0, built.stdout
    assert "this wheel is pure Python, because the modules cannot be compiled: there is no C compiler" in built.stdout
    assert wheel_in(tmp_path).name.endswith("-py3-none-any.whl")
    assert not [name for name in zipfile.ZipFile(wheel_in(tmp_path)).namelist() if name.endswith(".so")]


@pytest.mark.parametrize(
    ("said", "expected"),
    [("0", "there is no C compiler, or no Python.h; MERGANSER_PURE=1 makes a wheel"), ("yes", "MERGANSER_PURE='yes'")],
)
def test_a_wheel_that_cannot_be_as_asked_is_not_built(tmp_path: Path, said: str, expected: str) -> None:
    built = build(tmp_path, MERGANSER_PURE=said, **NO_COMPILER)
    assert built.returncode != 0
    assert expected in built.stdout
    assert not list(tmp_path.glob("*.whl"))


@pytest.mark.compiled
def test_compiled_wheel_serves(tmp_path: Path) -> None:
    built = build(tmp_path, MERGANSER_PURE="0")
    assert built.returncode == 0, built.stdout
    assert_serves(installed(wheel_in(tmp_path), tmp_path / "installed"), "compiled")
