"""Tags of tables: which there may be, and those that mean something to Merganser.

============================  ===============================================================================
merganser:replication         how the table is kept, for its whole life: leader, as without the tag, or leaderless
merganser:replicas            how many replicas of each item there are, or in which data centre: 3, or eu=3 us=2
merganser:data-centers        data centres that they may be in, if that is not said, as in eu us
merganser:zones               zones that anything of the table may be in, as in a b
merganser:enforce-throughput  true: the table is held to its throughput (`wire.dynamodb.metering`)
============================  ===============================================================================

Where replicas are can be changed later: the replicas move (`core.policy_changes`), and tags tell where they will be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from merganser.core import policies
from merganser.model.cluster import Replication
from merganser.model.policy import Policy
from merganser.service.table_changes import REPLICAS_DEFAULT
from merganser.wire.dynamodb.constraints import Violations
from merganser.wire.dynamodb.errors import ValidationError
from merganser.wire.dynamodb.table_settings import INVALID

Tags = tuple[tuple[str, str], ...]
"""Keys and values, in the order in which they came."""

TAGS_MAX: Final = 50
KEY_LENGTH_MAX: Final = 128
VALUE_LENGTH_MAX: Final = 256
REPLICATION_TAG: Final = "merganser:replication"
LEADERLESS_TAG: Final = f"{REPLICATION_TAG} = leaderless"
"""As errors name it."""
REPLICAS_TAG: Final = "merganser:replicas"
DATA_CENTERS_TAG: Final = "merganser:data-centers"
ZONES_TAG: Final = "merganser:zones"
_POLICY_TAGS: Final = (REPLICAS_TAG, DATA_CENTERS_TAG, ZONES_TAG)
ENFORCEMENT_TAG: Final = "merganser:enforce-throughput"
_TRUTHS: Final = ("true", "false")
_RESERVED_PREFIX: Final = "aws:"


def find_tag_violations(violations: Violations, tags: Sequence[Mapping[str, Any]]) -> None:
    """Add what is wrong with tags by the API's model."""
    for number, tag in enumerate(tags, start=1):
        prefix = f"tags.{number}.member."
        if violations.required(tag or {}, "Key", prefix):
            violations.length(tag["Key"], len(tag["Key"]), prefix + "key", least=1, most=KEY_LENGTH_MAX)
        if violations.required(tag or {}, "Value", prefix):
            violations.length(tag["Value"], len(tag["Value"]), prefix + "value", least=0, most=VALUE_LENGTH_MAX)


def check_tags(tags: Sequence[Mapping[str, Any]]) -> None:
    """Check tags that a request gives a table.

    Raises:
        ValidationError: there are too many, one twice, or one that nobody may give so.
    """
    keys = [tag["Key"] for tag in tags]
    if len(set(keys)) != len(keys):
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValidationError(f"{INVALID}Duplicate Tag keys: {repeated}")
    check_number(len(keys))
    for tag in tags:
        if tag["Key"].startswith(_RESERVED_PREFIX):
            raise ValidationError(f"{INVALID}Tag keys beginning with {_RESERVED_PREFIX} are reserved: {tag['Key']}")
        if tag["Key"] == REPLICATION_TAG and tag["Value"] not in get_args(Replication):
            raise ValidationError(
                f"{INVALID}The tag {REPLICATION_TAG} is {tag['Value']!r}, and can be leader, which it is without the "
                "tag, or leaderless"
            )
        if tag["Key"] == ENFORCEMENT_TAG and tag["Value"] not in _TRUTHS:
            raise ValidationError(
                f"{INVALID}The tag {ENFORCEMENT_TAG} is {tag['Value']!r}, and can be true, or false, which it is "
                "without the tag"
            )
    policy_in({tag["Key"]: tag["Value"] for tag in tags})


def check_number(tags: int) -> None:
    """Check how many tags a table is to have.

    Raises:
        ValidationError: more than it can.
    """
    if tags > TAGS_MAX:
        raise ValidationError(f"{INVALID}Too many Tags: a table has at most {TAGS_MAX}")


def tags_of(request: Mapping[str, Any]) -> Tags:
    """Return the tags in a checked request."""
    return tuple((tag["Key"], tag["Value"]) for tag in request.get("Tags") or ())


def described_tags(tags: Tags) -> list[dict[str, str]]:
    """Return tags as the API shows them."""
    return [{"Key": key, "Value": value} for key, value in tags]


def tagged(tags: Tags, added: Tags) -> Tags:
    """Return ``tags`` with others added, which replace those with the same keys.

    Raises:
        ValidationError: that makes too many, or would change how the table is kept.
    """
    merged = {**dict(tags), **dict(added)}
    check_number(len(merged))
    _check_replication(tags, merged)
    return tuple(merged.items())


def untagged(tags: Tags, keys: Sequence[str]) -> Tags:
    """Return ``tags`` without those of some keys, if they are there.

    Raises:
        ValidationError: that would change how the table is kept.
    """
    left = {key: value for key, value in tags if key not in keys}
    _check_replication(tags, left)
    return tuple(left.items())


def replication_in(tags: Mapping[str, str]) -> Replication:
    """Return how a table with these tags is kept."""
    return "leaderless" if tags.get(REPLICATION_TAG) == "leaderless" else "leader"


def policy_in(tags: Mapping[str, str]) -> Policy | None:
    """Return the policy that tags ask for, None if they ask for none.

    Raises:
        ValidationError: they make no sense.
    """
    said = [tag for tag in _POLICY_TAGS if tag in tags]
    if not said:
        return None
    try:
        return policies.parsed(
            replicas=tags.get(REPLICAS_TAG, ""),
            data_centers=tags.get(DATA_CENTERS_TAG, ""),
            zones=tags.get(ZONES_TAG, ""),
        )
    except ValueError as error:
        raise ValidationError(f"{INVALID}{' and '.join(said)}: {error}") from None


def policy_of(tags: Tags) -> Policy:
    """Return the policy that a table with these tags is to have.

    Raises:
        ValidationError: they make no sense.
    """
    return policy_in(dict(tags)) or Policy(REPLICAS_DEFAULT)


def telling(tags: Tags, policy: Policy) -> Tags:
    """Return ``tags`` such that they tell of ``policy``, as somebody may have changed it without them."""
    try:
        if policy_of(tags) == policy:
            return tags
    except ValidationError:  # an earlier release took them
        pass
    others = tuple((key, value) for key, value in tags if key not in _POLICY_TAGS)
    said = policies.written(policy)
    said["replicas"] = said["replicas"] if policy.replicas or policy.n != REPLICAS_DEFAULT else ""
    told = zip(_POLICY_TAGS, (said["replicas"], said["data_centers"], said["zones"]), strict=True)
    return (*others, *((key, value) for key, value in told if value))


def is_enforced(tags: Tags) -> bool:
    """Tell whether a table with these tags is held to its throughput."""
    return (ENFORCEMENT_TAG, "true") in tags


def _check_replication(before: Tags, after: Mapping[str, str]) -> None:
    if replication_in(dict(before)) != replication_in(after):
        raise ValidationError(
            f"{INVALID}The tag {REPLICATION_TAG} chooses how a table is kept when it is created, for its whole life: "
            "create another table"
        )
