"""Every seed that ever failed, with its scenario and what was wrong then.

A change of the simulator or of the code may change what a seed does. It stays all the same: it costs some
milliseconds, and the mechanism that failed has a test of its own.
"""

from __future__ import annotations

import msgspec

from merganser.sim.scenario import Scenario

HARD = Scenario(nodes=5, partitions=8, loss=0.5, clock_jump_s=40.0, operations=50, hot_keys=1)

FAILED_SEEDS: list[tuple[int, Scenario, str]] = [
    (56, Scenario(workload="native-crdts"), "a removal whose context had seen nothing took what its node saw"),
    (0, Scenario(clock_jump_s=120.0), "a write that one replica took and two refused was called unwritten"),
    (100_670, HARD, "repairs were judged before clocks had caught up with rows more than a minute ahead"),
    (2, Scenario(workload="tables", nodes=3), "a table was made, dropped by another, and its maker told it never was"),
    (200_873, Scenario(workload="tables"), "an answer that came while the map was being stored ended a look-up"),
    *(
        (seed, Scenario(workload="handoff", nemesis="partitions", nodes=5), "a look after a sloppy read met no replica")
        for seed in (3, 80, 116, 144)
    ),
    (427, Scenario(workload="expiries"), "a disk that failed under a walk for times ended the expirer"),
    (504, Scenario(workload="expiries", nodes=2), "the same"),
    (
        40_041,
        Scenario(workload="index-queries"),
        "an item that moved while a query waited for its lock was in no place",
    ),
    (7022, Scenario(workload="appends"), "a change and its copy that both waited for a transaction were both done"),
    (
        1000,
        Scenario(workload="appends", nemesis="membership"),
        "a leader that was to go waited to hand over to the one who stayed, and that was lost for good",
    ),
    (1, Scenario(workload="bank"), "an answer told of a promise that was made while it waited for the disk"),
    (
        71_006,
        msgspec.structs.replace(HARD, workload="last-writes"),
        "a conditional put that was delivered twice was done, and refused, and its client heard of the refusal",
    ),
    (
        71_015,
        msgspec.structs.replace(HARD, workload="crdt-carts"),
        "an update by a clock far behind, which enough replicas had refused, was said not to be answered",
    ),
    (
        1000,
        Scenario(workload="conditions", nemesis="splits+partitions"),
        "who had to answer was judged by a map in which others held the key by then",
    ),
    (
        77001,
        Scenario(workload="tags", nemesis="all+moves+policies"),
        "a node about to be in a zone that a table may be in was told to keep too much of it",
    ),
]
