"""The demo's client processes: some write every city, some read them back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from demo.cities import TABLE, Item, key_of
from demo.clients import client_of

PROGRESS_EVERY = 20
KEYS_A_READ = 100


@dataclass
class Written:
    """What one writer did; times in seconds of the machine's monotonic clock."""

    unacknowledged: list[Item] = field(default_factory=list)
    """Keys of items whose put failed or was not reached in time; nothing is promised of them."""
    retries: int = 0
    errors: list[str] = field(default_factory=list)
    acks: list[tuple[float, float]] = field(default_factory=list)
    """(when, how long) of each acknowledged PutItem."""


def write(endpoints: Sequence[str], items: Sequence[Item], progress: Queue[int], deadline: float) -> Written:
    """Put each item, one request each, until ``deadline`` (monotonic seconds)."""
    client = client_of(endpoints)
    done = Written()
    for number, item in enumerate(items, start=1):
        began = time.monotonic()
        if began > deadline:
            done.unacknowledged += map(key_of, items[number - 1 :])
            break
        try:
            answer = client.put_item(TableName=TABLE, Item=item)
        except (BotoCoreError, ClientError) as error:
            done.errors.append(f"put of {item['name']['S']}: {error}")
            done.unacknowledged.append(key_of(item))
        else:
            ended = time.monotonic()
            done.retries += answer["ResponseMetadata"]["RetryAttempts"]
            done.acks.append((ended, ended - began))
        if number % PROGRESS_EVERY == 0 or number == len(items):
            progress.put((number - 1) % PROGRESS_EVERY + 1)
    return done


def read_back(endpoint: str, items: Sequence[Item], progress: Queue[int], deadline: float) -> list[str]:
    """Read each item at QUORUM through one node; returns what is wrong, a sentence each."""
    client = client_of([endpoint])
    wrong: list[str] = []
    for start in range(0, len(items), KEYS_A_READ):
        part = items[start : start + KEYS_A_READ]
        if time.monotonic() > deadline:
            return [*wrong, f"{len(items) - start:,} items were not read in time at {endpoint}"]
        try:
            found = _batch_get(client, [key_of(item) for item in part])
        except (BotoCoreError, ClientError) as error:
            wrong.append(f"{len(part)} items could not be read at {endpoint}: {error}")
            continue
        wrong += differences(endpoint, part, found)
        progress.put(len(part))
    return wrong


def differences(endpoint: str, items: Sequence[Item], found: dict[tuple[str, str], Item]) -> list[str]:
    """Compare what was written with what one node returned; a sentence for each item lost or different."""
    wrong: list[str] = []
    for item in items:
        got = found.get((item["country"]["S"], item["id"]["N"]))
        if got is None:
            wrong.append(f"{item['name']['S']} is lost at {endpoint}")
        elif _normal(got) != _normal(item):
            wrong.append(f"{item['name']['S']} differs at {endpoint}: {got}")
    return wrong


def _batch_get(client: Any, keys: list[Item]) -> dict[tuple[str, str], Item]:
    found: dict[tuple[str, str], Item] = {}
    wanted = {TABLE: {"Keys": keys, "ConsistentRead": True}}
    while wanted:
        answer = client.batch_get_item(RequestItems=wanted)
        for item in answer["Responses"].get(TABLE, []):
            found[item["country"]["S"], item["id"]["N"]] = item
        wanted = answer["UnprocessedKeys"]
    return found


def _normal(item: Item) -> Item:
    """Sets have no order, and numbers one normal form: compare as DynamoDB does."""
    normal: Item = {}
    for name, value in item.items():
        kind, content = next(iter(value.items()))
        if kind == "SS":
            normal[name] = (kind, sorted(content))
        elif kind == "N":
            normal[name] = (kind, float(content))
        elif kind == "M":
            normal[name] = (kind, _normal(content))
        else:
            normal[name] = (kind, content)
    return normal
