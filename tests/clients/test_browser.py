"""dynamodb-admin, which many look into their tables with, as it is, in a browser.

Its form for new tables sends numbers as strings, which DynamoDB refuses. A script on its pages speaks to the server
itself, too, which is another origin for the browser.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest

from clients.conftest import HERE, Run
from merganser.testing import Server

pytestmark = [pytest.mark.process, pytest.mark.clients]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser() -> str:
    """A browser of the Chromium family; one that npm could bring would be fetched from elsewhere."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(BROWSERS)}")
    return found


def test_a_table_is_filled_looked_at_and_deleted_with_dynamodb_admin(
    run: Run,
    npm_packages: Callable[[str], Path],
    tool: Callable[[str], str],
    browser: str,
    tmp_path: Path,
    server: Server,
    table: str,
) -> None:
    client = boto3.client("dynamodb", **server.client_settings)
    client.create_table(
        TableName=table,
        AttributeDefinitions=[
            {"AttributeName": "species", "AttributeType": "S"},
            {"AttributeName": "seen", "AttributeType": "N"},
            {"AttributeName": "genus", "AttributeType": "S"},
        ],
        KeySchema=[
            {"AttributeName": "species", "KeyType": "HASH"},
            {"AttributeName": "seen", "KeyType": "RANGE"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-genus",
                "KeySchema": [{"AttributeName": "genus", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    client.update_time_to_live(TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"})
    node, packages = tool("node"), npm_packages("browser")
    shutil.copy(HERE / "browser" / "admin.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(packages)
    seen = run(node, "admin.mjs", browser, cwd=tmp_path)
    assert seen["problems"] == []
    assert (seen["listed"], seen["described"], seen["expiry"]) == (1, True, True)
    assert [set(row) >= {"1758"} for row in seen["both"]] == [True, True]
    assert seen["opened"] == {"species": "merganser", "seen": 1758, "genus": "Mergus"}
    for rows in (seen["byGenus"], seen["one"]):
        assert len(rows) == 1
        assert {'"smew"', '"Mergellus"'} <= set(rows[0])
    scanned, unknown = seen["crossed"]
    assert (scanned["status"], scanned["body"]["Count"], unknown["status"]) == (200, 2, 400)
    assert unknown["body"] == {"__type": "com.amazon.coral.service#UnknownOperationException"}
    assert all(len(answer["id"]) == 52 for answer in seen["crossed"])
    assert table not in client.list_tables()["TableNames"]
    client.close()
