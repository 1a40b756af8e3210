"""The demo's client processes: some write every city, some read them back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from queue import Empty
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from demo.cities import TABLE, Item, key_of
from demo.clients import client_of

CHUNK = 25
"""Items that a writer takes at a time: what one BatchWriteItem may hold."""
KEYS_A_READ = 100
BATCH_TRIES = 5
SPREAD = 64
VISITS_A_LOOK = 10
"""Puts between two looks at the list of nodes."""
PAUSE_S = 0.01
"""Between two visits: they are to meet every step of what changes, not to take the cores from it."""


@dataclass
class Written:
    """What one writer did; times in seconds of the machine's monotonic clock."""

    unacknowledged: list[Item] = field(default_factory=list)
    """Keys of items whose write failed; nothing is promised of them."""
    retries: int = 0
    errors: list[str] = field(default_factory=list)
    puts: list[tuple[float, float]] = field(default_factory=list)
    """(when, how long) of each acknowledged PutItem."""
    batches: list[tuple[float, float, int]] = field(default_factory=list)
    """(when, how long, items acknowledged) of each BatchWriteItem."""

    @property
    def acknowledged(self) -> int:
        """How many items."""
        return len(self.puts) + sum(items for _, _, items in self.batches)


def write(
    endpoints: Sequence[str],
    items: Sequence[Item],
    chunks: Queue[int],
    progress: Queue[int],
    deadline: float,
    is_batching: bool,
) -> Written:
    """Take chunks of ``items`` until none is left or ``deadline`` (monotonic seconds) is over, and write them.

    Args:
        endpoints: of all nodes.
        items: all of them, the same for every writer.
        chunks: where the chunks begin; shared by the writers.
        progress: is told how many items were dealt with.
        deadline: after it no chunk is begun.
        is_batching: one BatchWriteItem a chunk, else one PutItem an item.
    """
    client = client_of(endpoints)
    done = Written()
    while time.monotonic() < deadline:
        try:
            start = chunks.get_nowait()
        except Empty:
            break
        chunk = items[start : start + CHUNK]
        if is_batching:
            _write_batch(client, chunk, done)
        else:
            for item in chunk:
                _put(client, item, done)
        progress.put(len(chunk))
    return done


@dataclass
class Visits:
    """What one process wrote while the cluster changed; times in seconds of the machine's monotonic clock."""

    writer: int
    acknowledged: list[int] = field(default_factory=list)
    """Numbers of the items, in order."""
    moments: list[float] = field(default_factory=list)
    """When each was acknowledged."""
    retries: int = 0
    errors: list[str] = field(default_factory=list)

    def items(self) -> list[Item]:
        """Return what was acknowledged."""
        return [visit_of(self.writer, number) for number in self.acknowledged]


def visit_of(writer: int, number: int) -> Item:
    """Return one of the items that are written while the cluster changes; they are spread over all partitions."""
    name = f"visit {writer}-{number}"
    return {"country": {"S": f"visits-{writer}-{number % SPREAD}"}, "id": {"N": str(number)}, "name": {"S": name}}


def visit(endpoints: list[str], stop: Event, writer: int) -> Visits:
    """Put one item after another until ``stop`` is set, through whichever nodes ``endpoints`` names by then."""
    done = Visits(writer)
    known: list[str] = []
    number = 0
    while not stop.is_set():
        if known != list(endpoints):
            known = list(endpoints)
            client = client_of(known)
        for _ in range(VISITS_A_LOOK):
            number += 1
            time.sleep(PAUSE_S)
            try:
                answer = client.put_item(TableName=TABLE, Item=visit_of(writer, number))
            except (BotoCoreError, ClientError) as error:
                done.errors.append(f"visit {writer}-{number}: {error}")
                continue
            done.retries += answer["ResponseMetadata"]["RetryAttempts"]
            done.acknowledged.append(number)
            done.moments.append(time.monotonic())
    return done


def _put(client: Any, item: Item, done: Written) -> None:
    began = time.monotonic()
    try:
        answer = client.put_item(TableName=TABLE, Item=item)
    except (BotoCoreError, ClientError) as error:
        done.errors.append(f"put of {item['name']['S']}: {error}")
        done.unacknowledged.append(key_of(item))
        return
    ended = time.monotonic()
    done.retries += answer["ResponseMetadata"]["RetryAttempts"]
    done.puts.append((ended, ended - began))


def _write_batch(client: Any, items: Sequence[Item], done: Written) -> None:
    """Write ``items`` in one request, and what it leaves unprocessed in further ones."""
    left = [{"PutRequest": {"Item": item}} for item in items]
    for _ in range(BATCH_TRIES):
        began = time.monotonic()
        try:
            answer = client.batch_write_item(RequestItems={TABLE: left})
        except (BotoCoreError, ClientError) as error:
            done.errors.append(f"batch of {len(left)}: {error}")
            break
        ended = time.monotonic()
        unprocessed = answer["UnprocessedItems"].get(TABLE, [])
        done.retries += answer["ResponseMetadata"]["RetryAttempts"]
        done.batches.append((ended, ended - began, len(left) - len(unprocessed)))
        left = unprocessed
        if not left:
            return
    done.unacknowledged += [key_of(request["PutRequest"]["Item"]) for request in left]


def read_back(endpoint: str, items: Sequence[Item], progress: Queue[int], deadline: float) -> list[str]:
    """Read each item consistently through one node; returns what is wrong, a sentence each."""
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
