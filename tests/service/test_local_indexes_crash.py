"""A process that is killed while it writes registers leaves local indexes that equal them.

This file is the killed program as well: ``python test_local_indexes_crash.py DIRECTORY SEED``.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from merganser.core.token import token_of
from merganser.model.cluster import Table
from merganser.model.ids import TableId
from merganser.model.register import EMPTY, Content, Register, Version
from merganser.service.local_indexes import LocalIndexes, entries
from merganser.sim.local_keys import local_indexer, local_keys
from merganser.storage import keys
from merganser.storage.registers import decode_register, encode_register
from merganser.storage.rocks import RocksEngine
from service.killed_writer import killed_again_and_again, write_for_ever

ROUNDS = 3
TABLE = Table(TableId(7), "t", "sim", 1, b"", "a table", replication="leader")


def drawn(dice: random.Random, sequence: int) -> tuple[bytes, bytes]:
    name = b"k%d" % dice.randrange(20)
    key = keys.row_key(TABLE.id, token_of(name), name, b"s%d" % dice.randrange(10))
    content = EMPTY if dice.random() < 0.2 else Content(b"%d" % dice.randrange(10**6))
    return key, encode_register(key, Register(Version(1, 1, sequence), content))


def indexed(engine: RocksEngine) -> LocalIndexes:
    return LocalIndexes(engine, {"sim": local_indexer})


def entries_that_are_right(directory: Path) -> int:
    engine = RocksEngine.open(directory)
    try:
        wanted: set[bytes] = set()
        for key, stored in engine.scan(*keys.table_range(TABLE.id)):
            value = decode_register(key, stored).value
            wanted.update(() if value is None else entries(local_keys, key, value))
        held = {keys.split_local_key(key) for key, _ in engine.scan(*keys.all_local_range())}
        assert held == wanted
        return len(held)
    finally:
        engine.close()


def test_kill_9_leaves_local_indexes_that_are_those_of_the_registers(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    for _ in killed_again_and_again(__file__, directory, rounds=ROUNDS):
        assert entries_that_are_right(directory) > 0


if __name__ == "__main__":
    asyncio.run(write_for_ever(Path(sys.argv[1]), int(sys.argv[2]), TABLE, drawn, local=indexed))
