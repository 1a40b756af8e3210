"""What of DynamoDB's API is not served yet: one table, read by the request path and by the compatibility page.

An entry makes an operation refuse a parameter by name. What is served is taken out of the table, and nothing else
has to be told: `tests/wire/dynamodb/compatibility.py` writes docs/dynamodb-compatibility.md from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from merganser.wire.dynamodb.errors import UNKNOWN_OPERATION, ApiError, ValidationError

_REFUSAL: Final = "is not supported yet by Merganser"


class Unserved(NamedTuple):
    """Which values of a parameter are refused."""

    is_refused: Callable[[Any], bool]
    """Told of every value but null."""
    but: str = ""
    """What is served of it all the same, as the refusal says it after the name."""
    note: str = ""
    """As the compatibility page says it."""


ANY: Final = Unserved(lambda value: True)
UNSERVED: Final[Mapping[str, Mapping[str, Unserved]]] = {
    "CreateTable": {
        "ResourcePolicy": ANY,
        "GlobalTableSourceArn": ANY,
        "GlobalTableSettingsReplicationMode": ANY,
        "VectorIndexes": ANY,
    },
    "UpdateTable": {
        "ReplicaUpdates": ANY,
        "MultiRegionConsistency": ANY,
        "GlobalTableWitnessUpdates": ANY,
        "GlobalTableSettingsReplicationMode": ANY,
        "DisassociationProtectionEnabled": ANY,
        "VectorIndexUpdates": ANY,
    },
}
"""Parameters by operation, or by operation and the parameter whose elements they are members of."""

UNSERVED_OPERATIONS: Final = frozenset(
    (
        "BatchExecuteStatement",
        "CancelBulkOperation",
        "CreateBackup",
        "CreateGlobalTable",
        "DeleteBackup",
        "DeleteResourcePolicy",
        "DescribeBackup",
        "DescribeBulkOperation",
        "DescribeContributorInsights",
        "DescribeExport",
        "DescribeGlobalTable",
        "DescribeGlobalTableSettings",
        "DescribeImport",
        "DescribeKinesisStreamingDestination",
        "DescribeTableReplicaAutoScaling",
        "DisableKinesisStreamingDestination",
        "EnableKinesisStreamingDestination",
        "ExecuteStatement",
        "ExecuteTransaction",
        "ExportTableToPointInTime",
        "GetResourcePolicy",
        "ImportTable",
        "ListBackups",
        "ListBulkOperations",
        "ListContributorInsights",
        "ListExports",
        "ListGlobalTables",
        "ListImports",
        "PutResourcePolicy",
        "RestoreTableFromBackup",
        "RestoreTableToPointInTime",
        "SearchVectors",
        "StartBulkPutItems",
        "UpdateContinuousBackups",
        "UpdateContributorInsights",
        "UpdateGlobalTable",
        "UpdateGlobalTableSettings",
        "UpdateKinesisStreamingDestination",
        "UpdateTableReplicaAutoScaling",
    )
)
"""Every other operation of the API; what serves them takes them out."""

STREAM_OPERATIONS: Final = frozenset(("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams"))
"""Those of the API of DynamoDB Streams, which SDKs send to the same endpoint if they are told to."""

_SERVED: Final[Mapping[str, Unserved]] = {}


def unknown_operation(name: str) -> ApiError:
    """Return the refusal of an operation that is not served; one that the API has is named in it."""
    return ApiError(UNKNOWN_OPERATION, f"{name} {_REFUSAL}" if name in UNSERVED_OPERATIONS else "")


def unknown_stream_operation(name: str) -> ApiError:
    """Return the refusal of an operation of the API of DynamoDB Streams."""
    is_known = name in STREAM_OPERATIONS
    return ApiError(UNKNOWN_OPERATION, f"{name} {_REFUSAL}, which keeps no stream records" if is_known else "")


def refuse_unserved(place: str, members: Mapping[str, Any], *only: str) -> None:
    """Refuse the parameters that are not served yet, in the order of the table.

    Args:
        place: a key of `UNSERVED`; without an entry, all is served.
        members: by name.
        only: look at these alone; without any, at all.

    Raises:
        ValidationError: there is one.
    """
    for name, unserved in UNSERVED.get(place, _SERVED).items():
        value = members.get(name)
        if value is not None and (not only or name in only) and unserved.is_refused(value):
            raise ValidationError(f"{name}{unserved.but} {_REFUSAL}")
