"""How RocksDB's compactions keep out of the way of requests on the same cores.

A compaction reads and packs some hundred megabytes as fast as a core allows, for seconds, in a thread of RocksDB's own.
Where every core is wanted it takes as large a share of them as the loop does. And replicas take the same writes: with
memtables of one size all of them would compact in the same seconds, and no majority be left that does not.

So the kernel runs the thread that compacts after the others of its process, but runs it, or files would pile up until
RocksDB holds up writes, which is the loop; and each node draws a size of memtable at each start. Flushes, which writes
wait for sooner, are left as they are. Where the kernel shares the cores out among sessions or control groups first, as
it does among the nodes of one machine, a compaction takes what its own node leaves of the node's share.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from pathlib import Path

NICE = 10
"""Above the process's own: a tenth of the share that its others have, where they want all of it. Less is not better: a
thread that does not run may hold a lock that the loop waits for."""

MEMTABLE_BYTES = 16 * 2**20
_MEMTABLE_SHARE_MIN = 0.7
_THREAD = "rocksdb:low"
_NICE_MAX = 19
_TASKS = Path("/proc/self/task")


def memtable_bytes(rng: random.Random) -> int:
    """Draw how large a memtable of this node grows, `MEMTABLE_BYTES` at most."""
    return int(MEMTABLE_BYTES * rng.uniform(_MEMTABLE_SHARE_MIN, 1.0))


def put_last() -> None:
    """Have the kernel run the threads that compact, of all databases of this process, after its others, if it can.

    To be called once a database is open: its threads are there then. Only Linux knows priorities of threads, and only
    with glibc they have names; elsewhere nothing is changed.
    """
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):  # no /proc, or a system that does not let us
        nice = min(_NICE_MAX, os.getpriority(os.PRIO_PROCESS, 0) + NICE)
        for task in _TASKS.iterdir():
            with contextlib.suppress(OSError):  # a thread that has ended
                if (task / "comm").read_text().rstrip() == _THREAD:
                    os.setpriority(os.PRIO_PROCESS, int(task.name), nice)
