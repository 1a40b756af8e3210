"""Compile the hot modules with mypyc while a wheel is built; docs/adr/0014 tells which, and why.

    pip wheel .                     compiled where there is a C compiler, else pure Python, with a warning
    MERGANSER_PURE=1 pip wheel .    pure Python
    MERGANSER_PURE=0 pip wheel .    compiled, or an error

Editable installs are pure: they run the sources as they are.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "MERGANSER_PURE"
CHOICES = {"": None, "1": True, "0": False}
TOOLS = ("mypy>=2.4,<3", "setuptools>=77")
"""Who builds a pure wheel does not need them."""
SOURCES = "src"
GROUP = "merganser"
"""All modules are one library, ``merganser__mypyc``, so that they call each other without going through Python."""


class CompileHook(BuildHookInterface[Any]):
    """Puts compiled modules into the wheel, beside their sources, which stay for tracebacks."""

    _directory: str | None = None

    def dependencies(self) -> list[str]:
        """Return what is needed to build beside hatchling: mypy looks into what the modules import."""
        return [*TOOLS, *self.metadata.core.dependencies] if self._may_compile() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile.

        Raises:
            RuntimeError: that is not possible, and was asked for.
        """
        if version == "editable" or asked_for() is True:
            return
        self._directory = tempfile.mkdtemp(prefix="merganser-")
        try:
            built = compile_modules(Path(self.root), self.config["modules"], Path(self._directory))
        except (Exception, SystemExit) as error:  # mypyc exits
            reason = f"the modules cannot be compiled: {error}"
            if asked_for() is False:
                raise RuntimeError(f"{reason}; {VARIABLE}=1 makes a wheel of pure Python") from error
            self.app.display_warning(f"this wheel is pure Python, because {reason}")
            return
        build_data["force_include"].update({str(path): str(path.relative_to(self._directory)) for path in built})
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was only needed for the wheel."""
        if self._directory is not None:
            shutil.rmtree(self._directory)

    def _may_compile(self) -> bool:
        if self.target_name != "wheel":
            return False
        pure = asked_for()
        return has_compiler() if pure is None else not pure


def asked_for() -> bool | None:
    """Tell whether a pure wheel was asked for; None: whatever can be had.

    Raises:
        ValueError: the variable is neither 0 nor 1.
    """
    said = os.environ.get(VARIABLE, "")
    if said not in CHOICES:
        raise ValueError(f"{VARIABLE}={said!r}: write 1 for a wheel of pure Python, 0 for a compiled one")
    return CHOICES[said]


def has_compiler() -> bool:
    """Tell whether there are a C compiler and the headers of this Python."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or ""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return bool(command) and shutil.which(command.split()[0]) is not None and headers.exists()


def compile_modules(root: Path, modules: list[str], directory: Path) -> list[Path]:
    """Compile ``modules``, paths below the sources; returns the libraries, laid out below ``directory`` as in a wheel.

    Raises:
        Exception: whatever the compilers have to say; `SystemExit` if it is mypyc.
    """
    if not has_compiler():
        raise RuntimeError("there is no C compiler, or no Python.h")
    extensions = translate_modules(root, modules, directory)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [_built(extension, directory, pool) for extension in extensions]


def translate_modules(root: Path, modules: list[str], directory: Path) -> list[Any]:
    """Translate ``modules`` to C below ``directory``; returns setuptools' extensions. Exits if mypyc refuses one."""
    from mypyc.build import mypycify

    cache = ["--cache-dir", str(directory / "cache")]
    with contextlib.chdir(root):
        extensions: list[Any] = mypycify(
            [*cache, *(f"{SOURCES}/{module}" for module in modules)],
            opt_level="1",  # takes 80 s of CPU, 2 would take 125
            debug_level="0",
            multi_file=True,  # each core compiles a file
            group_name=GROUP,
            target_dir=str(directory / "c"),
        )
    return extensions


def _built(extension: Any, directory: Path, pool: ThreadPoolExecutor) -> Path:
    from distutils import ccompiler  # setuptools' own, since Python 3.12
    from distutils import sysconfig as customizing

    compiler = ccompiler.new_compiler()
    customizing.customize_compiler(compiler)
    include = [*extension.include_dirs, sysconfig.get_path("include")]

    def compiled(source: str) -> list[str]:
        return compiler.compile(
            [source], str(directory / "o"), include_dirs=include, extra_postargs=extension.extra_compile_args
        )

    objects = [path for paths in pool.map(compiled, extension.sources) for path in paths]
    target: Path = directory / (extension.name.replace(".", "/") + sysconfig.get_config_var("EXT_SUFFIX"))
    compiler.link_shared_object(objects, str(target))
    return target
