"""Data centres: each client stays in one and reads its own writes there, at levels that count by data centre or not.

Now and then a request goes through any node, one that may keep nothing of the table among them, at a level that a hint
may satisfy.
"""

from __future__ import annotations

from merganser.model.consistency import Consistency, ReadLevel, WriteLevel, WriteQuorums
from merganser.sim.clients import Clients, member_of
from merganser.sim.machine import Machine

NEAR_WRITES: tuple[WriteLevel, ...] = (Consistency.LOCAL_QUORUM,) * 4 + (
    *(Consistency.EACH_QUORUM, Consistency.LOCAL_ONE, Consistency.QUORUM, Consistency.ONE),
)
NEAR_READS: tuple[ReadLevel, ...] = (Consistency.LOCAL_QUORUM,) * 4 + (
    *(Consistency.EACH_QUORUM, Consistency.LOCAL_ONE, Consistency.QUORUM),
)
FAR_WRITES: tuple[WriteLevel, ...] = (Consistency.ANY, WriteQuorums(w=2), WriteQuorums(w=1), Consistency.QUORUM)
FAR_SHARE = 0.3


class DataCenters:
    """See the module's docstring."""

    def __init__(self, clients: Clients, hot_keys: int) -> None:
        """Share ``hot_keys`` keys between all clients; each has one of its own as well."""
        self._clients = clients
        self._hot_keys = hot_keys
        policy = member_of(clients.world.machines[0]).topology.map.policy_of(clients.table)
        self._homes = [name for name, _ in policy.replicas]
        fewest = min(sum(count for _, count in policy.replicas), len(clients.world.machines))
        self._far_writes = [level for level in FAR_WRITES if not isinstance(level, WriteQuorums) or level.w <= fewest]

    async def client(self, number: int, operations: int) -> None:
        """Write and read back, again and again."""
        clients, rng = self._clients, self._clients.rng
        home, own = self._homes[number % len(self._homes)], clients.key(f"session-{number}")
        for _ in range(operations):
            await clients.think()
            key = own if rng.random() < 0.4 else clients.key(f"hot-{rng.randrange(self._hot_keys)}")
            if rng.random() < FAR_SHARE:
                anywhere = clients.any_node()
                if anywhere is not None:
                    value = None if rng.random() < 0.1 else clients.new_value()
                    await clients.write(anywhere, key, value, client=number, level=rng.choice(self._far_writes))
                continue
            machine = self._near(home)
            if machine is not None and rng.random() < 0.6:
                await clients.write(machine, key, clients.new_value(), client=number, level=rng.choice(NEAR_WRITES))
            machine = self._near(home)
            if machine is not None:
                await clients.read(machine, key, client=number, level=rng.choice(NEAR_READS))

    def _near(self, home: str) -> Machine | None:
        """Return a machine of a data centre; None if the one drawn does not answer the phone."""
        drawn = self._clients.rng.choice(
            [machine for machine in self._clients.world.machines if machine.data_center == home]
        )
        return drawn if drawn.is_up and drawn.member is not None else None
