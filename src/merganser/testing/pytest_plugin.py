"""Fixtures of pytest: a Merganser to test against. Loaded by pytest wherever Merganser is installed.

Nothing is imported or started before a test asks for one of them. Each process of pytest-xdist has a server of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from merganser.testing.server import Server


TABLE_DELAY = "merganser_table_delay_ms"
_TABLE_DELAY_HELP = "how long tables of the fixture merganser stay CREATING, UPDATING and DELETING (0: not at all)"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take the table delay on the command line, or, less strongly, in the configuration file."""
    parser.getgroup("merganser").addoption(
        "--merganser-table-delay-ms", dest=TABLE_DELAY, type=int, metavar="MS", help=_TABLE_DELAY_HELP
    )
    parser.addini(TABLE_DELAY, _TABLE_DELAY_HELP, default="0")


@pytest.fixture(scope="session")
def merganser_server(pytestconfig: pytest.Config) -> Iterator[Server]:
    """A server in memory for the whole session; what is in it stays until somebody clears it."""
    from merganser.testing.server import Server

    with Server(table_delay_ms=_table_delay_ms(pytestconfig)) as server:
        yield server


@pytest.fixture
def merganser(merganser_server: Server) -> Iterator[Server]:
    """The server of the session without any table; the test during which it ends fails with its log."""
    merganser_server.start()  # if the last test was its end
    merganser_server.clear()
    yield merganser_server
    merganser_server.clear()  # an answer is also the proof that it lives


@pytest.fixture
def merganser_environment(merganser: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The same, and the environment leads the SDKs in this process and its children there."""
    for name, value in merganser.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"):
        monkeypatch.delenv(name, raising=False)
    return merganser


def _table_delay_ms(config: pytest.Config) -> int:
    given: int | None = config.getoption(TABLE_DELAY)
    if given is not None:
        return given
    configured = str(config.getini(TABLE_DELAY))
    if not configured.isdecimal():
        raise pytest.UsageError(f"{TABLE_DELAY} is a number of milliseconds, not {configured!r}")
    return int(configured)
