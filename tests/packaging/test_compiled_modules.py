"""What mypyc would compile to something else, without a word, is not in the modules that are compiled."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOKS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES: list[str] = HOOKS["custom"]["modules"]


@pytest.mark.parametrize("module", MODULES)
def test_compiled_module_keeps_its_meaning(module: str) -> None:
    tree = ast.parse((ROOT / "src" / module).read_text())
    assert [unsafe for node in ast.walk(tree) for unsafe in unsafe_in(node)] == []


def unsafe_in(node: ast.AST) -> list[str]:
    """Return what is wrong with one node."""
    if isinstance(node, ast.ClassDef):
        return [
            f"line {node.lineno}: {node.name} loses its keywords and the types of its members"
            for base in node.bases
            if ast.unparse(base).endswith("Struct")
        ]
    return []


@pytest.mark.parametrize("base", ["msgspec.Struct", "Struct"])
def test_a_struct_is_seen(base: str) -> None:
    (found,) = ast.parse(f"class Position({base}, frozen=True):\n    x: int | None").body
    assert unsafe_in(found) == ["line 1: Position loses its keywords and the types of its members"]


def test_mypyc_takes_them_all(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, hatch_build\n"
        "hatch_build.translate_modules(pathlib.Path(), sys.argv[2:], pathlib.Path(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *MODULES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "c" / MODULES[0]).with_suffix(".c").exists()


def test_subclasses_of_what_is_compiled_are_compiled() -> None:
    others = [path for path in (ROOT / "src").rglob("*.py") if str(path.relative_to(ROOT / "src")) not in MODULES]
    assert [
        f"{path.relative_to(ROOT)}: a class inherits from {base}, which mypyc refuses when it is made"
        for path in others
        for base in bases_in(path)
        if f"{base.rpartition('.')[0].replace('.', '/')}.py" in MODULES
    ] == []


def bases_in(path: Path) -> list[str]:
    """Return the classes of Merganser that classes of a module inherit from, by their full names."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    imported = {
        alias.name: f"{node.module}.{alias.name}"
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    named = [base for node in nodes if isinstance(node, ast.ClassDef) for base in node.bases]
    return [imported[base.id] for base in named if isinstance(base, ast.Name) and base.id in imported]


def test_a_base_is_found_by_its_full_name() -> None:
    assert bases_in(ROOT / "src/merganser/service/hinting.py") == ["merganser.service.asking.Writing"]
