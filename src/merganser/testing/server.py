"""A Merganser of one node, in memory, in a process of its own, for tests of what uses DynamoDB.

::

    with Server() as server:
        dynamodb = boto3.client("dynamodb", **server.client_settings)
        ...
        server.clear()  # no tables any more: the next test

It needs no client and no pytest, blocks until it serves, and belongs to the thread that uses it. The process ends with
`stop`, or when this one ends, however that happens.
"""

from __future__ import annotations

import http.client
import os
import tempfile
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

from merganser.model.errors import ConfigurationError
from merganser.node import environment
from merganser.node.local_cluster import LocalNode

REGION = "us-east-1"
LOG_LINES = 20
CLEAR_TIMEOUT_S = 15.0
ENDING_S = 1.0
_ADMIN = {"x-merganser-admin": "testing"}


class ClientSettings(TypedDict):
    """What clients are made with."""

    endpoint_url: str
    region_name: str
    aws_access_key_id: str
    aws_secret_access_key: str


class ServerError(Exception):
    """The server did not start, or has ended; the message has the end of its log."""


class Server:
    """A server that forgets everything at its end; see the module's docstring."""

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, table_delay_ms: int = 0, arguments: tuple[str, ...] = ()
    ) -> None:
        """Prepare a server; `start` starts it.

        Args:
            host: where it listens.
            port: for DynamoDB clients; 0 picks a free one, which stays the same when it is started again.
            table_delay_ms: how long tables stay CREATING, UPDATING and DELETING; 0: not at all.
            arguments: more options for ``merganser serve``.
        """
        self._host = host
        self._port = port
        self._table_delay_ms = table_delay_ms
        self._arguments = arguments
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._node: LocalNode | None = None
        self._admin: http.client.HTTPConnection | None = None

    def start(self) -> Self:
        """Start it, and return once it serves.

        Raises:
            ServerError: it cannot, for example because another process has the port.
        """
        if self.is_running:
            return self
        self.stop()
        self._directory = tempfile.TemporaryDirectory(prefix="merganser-")
        self._node = LocalNode(
            Path(self._directory.name),
            [
                *("--ephemeral", "--host", self._host, "--dynamodb-port", str(self._port)),
                *("--peer-port", "0", "--admin-port", "0", "--table-delay-ms", str(self._table_delay_ms)),
                *self._arguments,
            ],
            environment={k: v for k, v in os.environ.items() if not k.startswith(environment.PREFIX)},
        )
        try:
            self._node.start()
            self._node.wait_until_ready()
        except ConfigurationError as error:
            reason = str(error).partition("did not start: ")[2] or str(error)
            self.stop()
            raise ServerError(f"the Merganser for tests did not start: {reason}") from None
        except BaseException:
            self.stop()
            raise
        self._port = self.port
        return self

    def stop(self) -> None:
        """Stop it; nothing is left of it."""
        self._disconnect()
        if self._node is not None:
            self._node.stop()
            self._node = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._node is not None and self._node.pid is not None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._node.pid if self._node is not None else None

    @property
    def port(self) -> int:
        """For DynamoDB clients."""
        return int(self._address("dynamodb").rpartition(":")[2])

    @property
    def endpoint_url(self) -> str:
        """For DynamoDB clients."""
        return f"http://{self._address('dynamodb')}"

    @property
    def client_settings(self) -> ClientSettings:
        """What ``boto3.client("dynamodb", …)`` and its like need; credentials that stand for nobody."""
        return {
            "endpoint_url": self.endpoint_url,
            "region_name": REGION,
            "aws_access_key_id": "merganser",
            "aws_secret_access_key": "merganser",
        }

    @property
    def environment(self) -> dict[str, str]:
        """The same for processes and code that make their own clients, as the SDKs read it."""
        return {
            "AWS_ENDPOINT_URL_DYNAMODB": self.endpoint_url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "merganser",
            "AWS_SECRET_ACCESS_KEY": "merganser",
        }

    @property
    def log(self) -> str:
        """What it has logged, a JSON object a line; "" if it does not run and was stopped."""
        return "" if self._node is None else self._node.log.read_text(errors="replace")

    def check(self) -> None:
        """Return if it runs.

        Raises:
            ServerError: it was never started, was stopped, or has ended by itself; then with the end of its log.
        """
        if self._node is None:
            raise ServerError("the Merganser for tests does not run: start() it, or use it in a with statement")
        status = self._node.exit_status
        if status is not None:
            last = "".join(f"\n  {line}" for line in deque(self.log.splitlines(), LOG_LINES))
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            raise ServerError(f"the Merganser for tests has ended {how}; the end of its log:{last or ' nothing'}")

    def clear(self) -> None:
        """Drop every table, protected against deletion or not; what it knew of transactions goes with them.

        Raises:
            ServerError: it does not run, or did not do it.
        """
        self.check()
        try:
            status, answer = self._ask_to_clear()
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            if self._node is not None and isinstance(error, ConnectionError | http.client.BadStatusLine):
                self._node.has_ended(ENDING_S)  # a process that dies closes its sockets first
            self.check()
            raise ServerError(f"the Merganser for tests did not answer: {error!r}") from error
        if status != 200:
            raise ServerError(f"the Merganser for tests could not drop its tables: {answer}")

    def _ask_to_clear(self) -> tuple[int, str]:
        if self._admin is None:
            host, _, port = self._address("admin").rpartition(":")
            self._admin = http.client.HTTPConnection(host, int(port), timeout=CLEAR_TIMEOUT_S)
        self._admin.request("POST", "/clean", headers=_ADMIN)
        response = self._admin.getresponse()
        return response.status, response.read().decode(errors="replace")

    def _disconnect(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _address(self, door: str) -> str:
        if self._node is None or door not in self._node.addresses:
            self.check()
            raise ServerError("the Merganser for tests is starting")
        return self._node.addresses[door]
