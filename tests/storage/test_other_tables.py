"""What is kept of tables that are gone is dropped, and nothing else."""

from __future__ import annotations

from merganser.model.ids import TableId
from merganser.storage.engine import Batch
from merganser.storage.memory import MemoryEngine
from merganser.storage.other_tables import drop_others

PREFIX = b"entries|"
RESTS = (b"", b"\x00", b"\xff" * 9)
TABLES = (0, 1, 2, 3, 7, 8, 255, 256, 2**32 - 2)


def test_entries_of_kept_tables_and_of_other_prefixes_stay() -> None:
    engine = MemoryEngine()
    around = [b"entries", b"entries{", b"entry"]
    own = {table: [PREFIX + table.to_bytes(4, "big") + rest for rest in RESTS] for table in TABLES}
    for key in [*around, *(key for keys in own.values() for key in keys)]:
        engine.commit(Batch().put(key, b"x"))
    kept = [TableId(table) for table in (1, 3, 8, 256)]
    batch = Batch()
    drop_others(engine, PREFIX, kept, batch)
    engine.commit(batch)
    found = [key for key, _ in engine.scan(b"", b"\xff")]
    assert found == sorted([*around, *(key for table in kept for key in own[table])])
    again = Batch()
    drop_others(engine, PREFIX, kept, again)
    assert again.operations == [], "what is gone is not dropped again"
