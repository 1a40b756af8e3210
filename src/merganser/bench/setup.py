"""Make and drop the table of a measurement, on any DynamoDB endpoint."""

from __future__ import annotations

import http.client
import os
import time
from typing import Any
from urllib.parse import urlsplit

import orjson

from merganser.bench.requests import Signer, credentials_of
from merganser.model.errors import ConfigurationError
from merganser.wire.dynamodb.tags import REPLICATION_TAG

ACTIVE_TIMEOUT_S = 30.0
POLL_S = 0.05
TIMEOUT_S = 10.0


def create_table(endpoint: str, name: str, *, replication: str | None = None, is_ranged: bool = False) -> None:
    """Create a table with a string partition key ``pk`` and wait until it is ACTIVE; ``is_ranged``: a sort key ``sk``.

    ``replication`` is said in a tag that only Merganser heeds; None: it is not said.

    Raises:
        ConfigurationError: the endpoint cannot be reached, or refuses.
    """
    names = {"pk": "HASH", "sk": "RANGE"} if is_ranged else {"pk": "HASH"}
    wanted: dict[str, Any] = {
        "TableName": name,
        "AttributeDefinitions": [{"AttributeName": one, "AttributeType": "S"} for one in names],
        "KeySchema": [{"AttributeName": one, "KeyType": kind} for one, kind in names.items()],
        "BillingMode": "PAY_PER_REQUEST",
    }
    if replication is not None:
        wanted["Tags"] = [{"Key": REPLICATION_TAG, "Value": replication}]
    _call(endpoint, "CreateTable", wanted)
    deadline = time.monotonic() + ACTIVE_TIMEOUT_S
    while _call(endpoint, "DescribeTable", {"TableName": name})["Table"]["TableStatus"] != "ACTIVE":
        if time.monotonic() > deadline:
            raise ConfigurationError(f"table {name} at {endpoint} did not become ACTIVE in {ACTIVE_TIMEOUT_S:g} s")
        time.sleep(POLL_S)


def drop_table(endpoint: str, name: str) -> None:
    """Delete the table.

    Raises:
        ConfigurationError: the endpoint cannot be reached, or refuses.
    """
    _call(endpoint, "DeleteTable", {"TableName": name})


def is_answering(endpoint: str) -> bool:
    """Tell whether a request for the names of tables is answered."""
    try:
        _call(endpoint, "ListTables", {})
    except ConfigurationError:
        return False
    return True


def _call(endpoint: str, operation: str, body: dict[str, Any]) -> dict[str, Any]:
    url = urlsplit(endpoint)
    request = Signer(url.netloc, credentials_of(os.environ)).request(operation, orjson.dumps(body))
    head, _, payload = request.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/", payload, headers)
        response = connection.getresponse()
        answer: dict[str, Any] = orjson.loads(response.read())
    except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
        raise ConfigurationError(f"{operation} at {endpoint} failed: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise ConfigurationError(f"{operation} at {endpoint} was refused: {answer.get('message', answer)}")
    return answer
