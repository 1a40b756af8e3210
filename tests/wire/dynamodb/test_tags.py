from __future__ import annotations

from typing import Any

import orjson
import pytest

from merganser.model.policy import Policy
from wire.dynamodb.fakes import Cluster, served

INVALID = "ValidationException | One or more parameter values were invalid: "
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/str"
REPLICATION = "merganser:replication"


def tag(key: str, value: str = "") -> dict[str, str]:
    return {"Key": key, "Value": value}


def tags(cluster: Cluster, arn: str = ARN) -> Any:
    return cluster.call("ListTagsOfResource", {"ResourceArn": arn})


def done(cluster: Cluster, operation: str, **request: Any) -> None:
    body = orjson.dumps({"ResourceArn": ARN, **request})
    assert cluster.run(served(cluster.dynamodb, operation, body)) == b""


def test_tags_are_added_replaced_and_removed(cluster: Cluster) -> None:
    assert tags(cluster) == {"Tags": []}
    done(cluster, "TagResource", Tags=[tag("a", "1"), tag("b", "2")])
    done(cluster, "TagResource", Tags=[tag("a", "3"), tag("c", "")])
    assert tags(cluster) == {"Tags": [tag("a", "3"), tag("b", "2"), tag("c")]}
    done(cluster, "UntagResource", TagKeys=["b", "nope"])
    assert tags(cluster) == {"Tags": [tag("a", "3"), tag("c")]}


def test_tags_of_a_new_table_are_listed(cluster: Cluster) -> None:
    cluster.call(
        "CreateTable",
        {
            "TableName": "abc",
            "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
            "Tags": [tag("b", "1"), tag("a", "2")],
        },
    )
    assert tags(cluster, ARN[:-3] + "abc") == {"Tags": [tag("b", "1"), tag("a", "2")]}


@pytest.mark.parametrize(
    ("operation", "request_", "answer"),
    [
        pytest.param("TagResource", {}, "ValidationException | Invalid TableArn", id="nothing"),
        pytest.param(
            "ListTagsOfResource",
            {"ResourceArn": "str"},
            "AccessDeniedException | User: arn:aws:iam::000000000000:root is not authorized to perform: "
            "dynamodb:ListTagsOfResource on resource: str",
            id="name for an ARN",
        ),
        pytest.param(
            "TagResource",
            {"ResourceArn": ARN},
            "ValidationException | 1 validation error detected: Value null at 'tags' failed to satisfy constraint: "
            "Member must not be null",
            id="no tags",
        ),
        pytest.param(
            "UntagResource",
            {"ResourceArn": ARN + "/index/a", "TagKeys": ["a"]},
            f"ValidationException | Invalid TableArn: Invalid ResourceArn provided as input {ARN}/index/a",
            id="ARN of something else",
        ),
        pytest.param(
            "TagResource",
            {"ResourceArn": ARN, "Tags": []},
            "ValidationException | Atleast one Tag needs to be provided as Input.",
            id="empty",
        ),
        pytest.param(
            "UntagResource",
            {"ResourceArn": ARN, "TagKeys": []},
            "ValidationException | Atleast one Tag Key needs to be provided as Input.",
            id="no keys",
        ),
        pytest.param(
            "TagResource",
            {"ResourceArn": ARN, "Tags": [tag("a" * 129, "b"), tag("", "c" * 257)]},
            f"ValidationException | 3 validation errors detected: Value '{'a' * 129}' at 'tags.1.member.key' failed to "
            "satisfy constraint: Member must have length less than or equal to 128; Value '' at 'tags.2.member.key' "
            "failed to satisfy constraint: Member must have length greater than or equal to 1; Value "
            f"'{'c' * 257}' at 'tags.2.member.value' failed to satisfy constraint: Member must have length less than "
            "or equal to 256",
            id="lengths",
        ),
        pytest.param(
            "TagResource",
            {"ResourceArn": ARN, "Tags": [tag("a"), tag("a")]},
            INVALID + "Duplicate Tag keys: a",
            id="twice",
        ),
        pytest.param(
            "TagResource",
            {"ResourceArn": ARN, "Tags": [tag("aws:a")]},
            INVALID + "Tag keys beginning with aws: are reserved: aws:a",
            id="reserved",
        ),
        pytest.param(
            "TagResource",
            {"ResourceArn": ARN[:-3] + "nope", "Tags": [tag("a")]},
            f"ResourceNotFoundException | Requested resource not found: ResourcArn: {ARN[:-3]}nope not found",
            id="no table",
        ),
        pytest.param(
            "UntagResource",
            {"ResourceArn": ARN[:-3] + "nope", "TagKeys": ["a"]},
            "ResourceNotFoundException | Requested resource not found",
            id="no table to untag",
        ),
        pytest.param(
            "ListTagsOfResource",
            {"ResourceArn": ARN, "NextToken": "a"},
            "ValidationException | The provided NextToken is invalid",
            id="token",
        ),
        pytest.param(
            "TagResource",
            {"ResourceArn": ARN, "Tags": [{"Key": 1}]},
            "SerializationException | NUMBER_VALUE cannot be converted to String",
            id="JSON type",
        ),
    ],
)
def test_wrong_tagging_is_refused(cluster: Cluster, operation: str, request_: Any, answer: str) -> None:
    assert cluster.call(operation, request_) == answer
    assert tags(cluster) == {"Tags": []}


def test_a_table_has_fifty_tags_at_most(cluster: Cluster) -> None:
    done(cluster, "TagResource", Tags=[tag(f"t{number}") for number in range(50)])
    answer = cluster.call("TagResource", {"ResourceArn": ARN, "Tags": [tag("more")]})
    assert answer == INVALID + "Too many Tags: a table has at most 50"
    done(cluster, "TagResource", Tags=[tag("t0", "another value")])


def test_tags_do_not_change_how_a_table_is_kept(cluster: Cluster, leaderless: Cluster) -> None:
    changed = cluster.call("TagResource", {"ResourceArn": ARN, "Tags": [tag(REPLICATION, "leaderless")]})
    removed = leaderless.call("UntagResource", {"ResourceArn": ARN, "TagKeys": [REPLICATION]})
    assert changed == removed
    assert "for its whole life" in changed
    done(cluster, "TagResource", Tags=[tag(REPLICATION, "leader")])
    done(cluster, "UntagResource", TagKeys=[REPLICATION])


PLACES = [tag("merganser:replicas", "eu=3 us=2"), tag("merganser:zones", "a b")]


def created(cluster: Cluster, *tags_: dict[str, str]) -> str:
    answer: str = cluster.call(
        "CreateTable",
        {
            "TableName": "abc",
            "AttributeDefinitions": [{"AttributeName": "p", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "p", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
            "Tags": list(tags_),
        },
    )
    return answer


def test_tags_choose_where_a_table_is_kept(cluster: Cluster) -> None:
    created(cluster, *PLACES)
    assert cluster.catalog.policies["abc"] == Policy(5, replicas=(("eu", 3), ("us", 2)), zones=("a", "b"))
    assert tags(cluster, ARN[:-3] + "abc") == {"Tags": PLACES}
    assert cluster.catalog.policies["str"] is None


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        (tag("merganser:replicas", "0"), "merganser:replicas: '0' is no number of replicas: write 1 to 16"),
        (tag("merganser:data-centers", "eu eu"), "merganser:data-centers: data centre 'eu' is there twice"),
        (tag("merganser:zones", "a=1"), "merganser:zones: 'a=1' is no name of a zone"),
        (tag("merganser:replicas", "nowhere=1"), "no node that owns anything is in data centre 'nowhere'"),
    ],
)
def test_places_that_make_no_sense_are_refused(cluster: Cluster, wrong: dict[str, str], answer: str) -> None:
    told = created(cluster, wrong)
    assert told.startswith("ValidationException | ")
    assert answer in told
    assert "abc" not in cluster.catalog.policies


def test_tags_change_where_a_table_is_kept(cluster: Cluster) -> None:
    done(cluster, "TagResource", Tags=[tag("merganser:zones", "a"), tag("b", "1")])
    assert cluster.catalog.policies["str"] == Policy(3, zones=("a",))
    done(cluster, "TagResource", Tags=[tag("merganser:replicas", "5")])
    assert cluster.catalog.policies["str"] == Policy(5, zones=("a",))
    assert tags(cluster) == {"Tags": [tag("merganser:zones", "a"), tag("b", "1"), tag("merganser:replicas", "5")]}
    done(cluster, "UntagResource", TagKeys=["merganser:zones", "merganser:replicas"])
    assert cluster.catalog.policies["str"] == Policy(3)
    assert tags(cluster) == {"Tags": [tag("b", "1")]}


def test_tags_tell_of_a_policy_that_was_changed_without_them(cluster: Cluster) -> None:
    done(cluster, "TagResource", Tags=[tag("merganser:zones", "a")])
    cluster.catalog.policies["str"] = Policy(4, replicas=(("eu", 2), ("us", 2)))
    assert tags(cluster) == {"Tags": [tag("merganser:replicas", "eu=2 us=2")]}
    done(cluster, "TagResource", Tags=[tag("merganser:zones", "b")])
    assert cluster.catalog.policies["str"] == Policy(4, replicas=(("eu", 2), ("us", 2)), zones=("b",))


def test_a_policy_that_makes_no_sense_changes_neither_tags_nor_table(cluster: Cluster) -> None:
    wanted = {"ResourceArn": ARN, "Tags": [tag("merganser:replicas", "nowhere=1"), tag("b", "1")]}
    assert cluster.call("TagResource", wanted) == INVALID + "no node that owns anything is in data centre 'nowhere'"
    assert tags(cluster) == {"Tags": []}
    assert cluster.catalog.policies["str"] is None
