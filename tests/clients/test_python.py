"""Unmodified Python clients see what they see with DynamoDB."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clients.conftest import Install, Run
from clients.expected import EXPECTED, ITEM

pytestmark = pytest.mark.process


@pytest.fixture(scope="session")
def packages(install: Install) -> Path:
    """Clients that need another botocore than boto3's, or that only these tests need."""

    def commands(draft: Path) -> list[list[str]]:
        uv = str(Path(sys.executable).with_name("uv"))
        options = ["--quiet", "--python", sys.executable, "--require-hashes", "--target", str(draft / "lib")]
        return [[uv, "pip", "install", *options, "--requirement", str(draft / "requirements.txt")]]

    return install("python", ["requirements.txt"], commands) / "lib"


def test_boto3_client(run: Run) -> None:
    more = {
        "unprocessed": {"answers": 2, "found": True},
        "measures": {"wrote": [3.0, 1.0, 1.0, 1.0], "read": 0.5, "collection": {"species": {"S": "merganser"}}},
        "index_changes": {"became": ["CREATING"], "found": True, "left": {"by-genus": "ACTIVE"}},
    }
    assert run(sys.executable, "python/boto3_client.py") == {**EXPECTED, **more}


def test_boto3_resource(run: Run) -> None:
    assert run(sys.executable, "python/boto3_resource.py") == EXPECTED


def test_aiobotocore(run: Run, packages: Path) -> None:
    environment = {"PYTHONPATH": str(packages)}
    assert run(sys.executable, "python/aiobotocore_client.py", environment=environment) == EXPECTED


def test_pynamodb(run: Run, packages: Path) -> None:
    seen = run(sys.executable, "python/pynamodb_models.py", environment={"PYTHONPATH": str(packages)})
    assert seen == {
        **{scenario: answer for scenario, answer in EXPECTED.items() if scenario != "legacy"},
        "indexes": {name: answer for name, answer in EXPECTED["indexes"].items() if name != "described"},
        "settings": {"expires_in_days": 1},
        "batches": {"written": 25, "read": 25},
        "pages": {**EXPECTED["pages"], "query": 25, "scan": 25},
        "items": {"read": "Mergus", "absent": True, "counted": "2", "refused": "ConditionalCheckFailedException"},
        "types": {name: value for name, value in ITEM.items() if name not in ("small", "nothing")},
        "transactions": {
            "read": ["one", "two"],
            "cancelled": ["TransactionCanceledException", ["ConditionalCheckFailed", "None"]],  # it sends checks first
        },
    }


@pytest.mark.clients
def test_aws_cli(run: Run) -> None:
    """Some fifty processes; `tests/end_to_end/test_clients.py` has fewer of them."""
    seen = run(sys.executable, "python/aws_cli.py")
    assert seen == {
        **EXPECTED,
        "pages": {**EXPECTED["pages"], "query": 25, "scan": 25},
        "items": {**EXPECTED["items"], "refused": "ConditionalCheckFailedException"},
    }
