"""A process that is killed while it writes rows and images leaves images that equal their rows.

This file is the killed program as well: ``python test_hash_trees_crash.py DIRECTORY SEED``.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from merganser.core.token import token_of
from merganser.model.ids import PartitionId
from merganser.model.row import Cell, Row
from merganser.model.timestamp import Timestamp
from merganser.service.tree_images import TreeImages
from merganser.storage import keys
from merganser.storage.rocks import RocksEngine
from merganser.storage.values import encode_row
from service.killed_writer import PARTITIONS, killed_again_and_again, write_for_ever
from service.trees_by_hand import IMAGES, TABLE, rebuilt

ROUNDS = 4


def drawn(dice: random.Random, version: int) -> tuple[bytes, bytes]:
    name = b"k%d" % dice.randrange(200)
    key = keys.row_key(TABLE.id, token_of(name), name)
    return key, encode_row(key, Row((Cell(b"", Timestamp(version, 1), b"%d" % version),)))


def images_that_were_right(directory: Path) -> int:
    engine = RocksEngine.open(directory)
    try:
        wanted = rebuilt(engine, partitions=PARTITIONS)
        images = list(engine.scan(IMAGES, keys.prefix_end(IMAGES)))
        for key, _ in images:
            partition = PartitionId(int.from_bytes(key[-8:], "big"))
            image = TreeImages(engine).load((TABLE.id, partition))
            assert image is not None
            assert image[0] == wanted[partition]
        return len(images)
    finally:
        engine.close()


def test_kill_9_leaves_no_image_that_its_rows_contradict(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    right = sum(images_that_were_right(directory) for _ in killed_again_and_again(__file__, directory, rounds=ROUNDS))
    assert right > 0, "no image was there to be judged"


if __name__ == "__main__":
    asyncio.run(write_for_ever(Path(sys.argv[1]), int(sys.argv[2]), TABLE, drawn))
