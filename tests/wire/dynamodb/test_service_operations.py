from __future__ import annotations

from wire.dynamodb.fakes import Cluster


def test_limits_are_those_of_every_account(cluster: Cluster) -> None:
    assert cluster.call("DescribeLimits", {}) == {
        "AccountMaxReadCapacityUnits": 80000,
        "AccountMaxWriteCapacityUnits": 80000,
        "TableMaxReadCapacityUnits": 40000,
        "TableMaxWriteCapacityUnits": 40000,
    }


def test_the_endpoint_is_this_node(cluster: Cluster) -> None:
    assert cluster.call("DescribeEndpoints", {}) == {
        "Endpoints": [{"Address": "localhost:8000", "CachePeriodInMinutes": 1440}]
    }


def test_there_are_no_backups(cluster: Cluster) -> None:
    described = cluster.call("DescribeContinuousBackups", {"TableName": "str"})
    assert described["ContinuousBackupsDescription"] == {
        "ContinuousBackupsStatus": "DISABLED",
        "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "DISABLED"},
    }
    answer = cluster.call("DescribeContinuousBackups", {"TableName": "nope"})
    assert answer == "TableNotFoundException | Table not found: nope"
