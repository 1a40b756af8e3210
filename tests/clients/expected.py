"""What every client must come to: each does the same list of scenarios and prints what it saw, as JSON.

The scenarios, in their order, on a table with partition key ``species`` (S) and sort key ``seen`` (N):

tables        create, wait until it exists, describe; create again; describe another that is not there
batches       25 items in one BatchWriteItem, read in one BatchGetItem, each until nothing is unprocessed; 26 items
pages         query in pages of 10; the first 3 backwards; those of a size above 20; scan in pages of 7; in 2 segments
items         put, get, get what is not there, count up twice, put on a condition that fails, delete
types         an item of every type, written and read back
transactions  two puts; the same again under its token; one whose second condition fails; two gets
indexes       a second table with a local index by ``size`` and a global one by ``genus`` that has ``name``, too;
              three items, one without genus; the local index; the global one once it is there, and consistently
settings      time to live, tags, protection against deletion, on the second table
legacy        a put that Expected refuses, a query with KeyConditions, QueryFilter and AttributesToGet, on the same one
dropped       delete both tables, wait until they are gone, describe the first, list tables
"""

from __future__ import annotations

from typing import Any

ITEM: dict[str, Any] = {
    "species": {"S": "every type"},
    "seen": {"N": "0"},
    "empty": {"S": ""},
    "text": {"S": "é𝄞\n"},
    "whole": {"N": "12345678901234567890123456789012345678"},
    "small": {"N": "-0.00000000000000000000000000012345678901234567890123456789012345678"},
    "bytes": {"B": "AAEC/f7/"},
    "is_duck": {"BOOL": True},
    "nothing": {"NULL": True},
    "names": {"SS": ["a", "b"]},
    "years": {"NS": ["-1", "1758"]},
    "blobs": {"BS": ["AA==", "/w=="]},
    "list": {"L": [{"N": "1"}, {"S": "two"}, {"L": []}]},
    "map": {"M": {"in": {"M": {"deep": {"BOOL": False}}}}},
}

EXPECTED: dict[str, Any] = {
    "tables": {
        "made": ["ACTIVE", "species", "seen"],
        "again": "ResourceInUseException",
        "missing": "ResourceNotFoundException",
    },
    "batches": {"written": 25, "read": 25, "too_many": "ValidationException"},
    "pages": {
        "query": [10, 10, 5],
        "seen": list(range(1, 26)),
        "backwards": [25, 24, 23],
        "filtered": [21, 22, 23, 24, 25],
        "scan": [7, 7, 7, 4],
        "segments": 25,
    },
    "items": {
        "read": "Mergus",
        "absent": True,
        "counted": "2",
        "refused": ["ConditionalCheckFailedException", "Mergus"],
        "deleted": "Mergus",
    },
    "types": ITEM,
    "transactions": {
        "read": ["one", "two"],
        "cancelled": ["TransactionCanceledException", ["None", "ConditionalCheckFailed"]],
    },
    "indexes": {
        "described": ["by-genus", "ACTIVE", "by-size"],
        "local": [3, 2, 1],
        "global": [1, 2],
        "projected": ["genus", "name", "seen", "species"],
        "consistent": "ValidationException",
    },
    "settings": {"expiry": ["ENABLED", "expires"], "tags": [["b", "2"]], "protected": "ValidationException"},
    "legacy": {"refused": "ConditionalCheckFailedException", "seen": [1, 2]},
    "dropped": {"gone": "ResourceNotFoundException", "is_listed": False},
}
