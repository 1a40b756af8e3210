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

    items: int = 0
    retries: int = 0
    errors: list[str] = field(default_factory=list)
    acks: list[tuple[float, float]] = field(default_factory=list)
    """(when, how long) of each acknowledged PutItem."""


def write(endpoints: Sequence[str], items: Sequence[Item], progress: Queue[int]) -> Written:
    """Put each item, one request each."""
    client = client_of(endpoints)
    done = Written()
    for number, item in enumerate(items, start=1):
        began = time.monotonic()
        try:
            answer = client.put_item(TableName=TABLE, Item=item)
        except (BotoCoreError, ClientError) as error:
            done.errors.append(str(error))
        else:
            ended = time.monotonic()
            done.items += 1
            done.retries += answer["ResponseMetadata"]["RetryAttempts"]
            done.acks.append((ended, ended - began))
        if number % PROGRESS_EVERY == 0 or number == len(items):
            progress.put((number - 1) % PROGRESS_EVERY + 1)
    return done


def read_back(endpoint: str, items: Sequence[Item], progress: Queue[int]) -> list[str]:
    """Read each item at QUORUM through one node; returns what is wrong, a sentence each."""
    client = client_of([endpoint])
    wrong: list[str] = []
    for start in range(0, len(items), KEYS_A_READ):
        part = items[start : start + KEYS_A_READ]
        found = _batch_get(client, [key_of(item) for item in part])
        for item in part:
            got = found.get((item["country"]["S"], item["id"]["N"]))
            if got is None:
                wrong.append(f"{item['name']['S']} is lost at {endpoint}")
            elif _normal(got) != _normal(item):
                wrong.append(f"{item['name']['S']} differs at {endpoint}: {got}")
        progress.put(len(part))
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
