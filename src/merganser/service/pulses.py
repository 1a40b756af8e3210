"""Pulses: each node says to all that share a group with it, several times a second, that it lives and what it leads.

What is heard goes to `core.leadership`, which judges by it who is silent and which leaders are gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from merganser.core.leadership import PULSES_LOST, Elections
from merganser.model.ids import NodeId, PartitionId
from merganser.model.leader_messages import Pulse, Pulsed
from merganser.model.leadership import Epoch, Group
from merganser.model.messages import Reply
from merganser.service.asking import Asker, error_of
from merganser.service.topology import Topology
from merganser.service.voting import Voting


class Pulses:
    """Sends and hears pulses; see the module's docstring."""

    def __init__(
        self,
        topology: Topology,
        asker: Asker,
        elections: Elections,
        voting: Voting,
        *,
        learned: Callable[[Group, Epoch], None],
        pulse_s: float,
    ) -> None:
        """Send nothing yet.

        Args:
            topology: knows the peers by their numbers.
            asker: reaches them.
            elections: says what to tell, and is told what was heard.
            voting: admits members only.
            learned: told of epochs that others have promised.
            pulse_s: between two pulses.
        """
        self._topology = topology
        self._asker = asker
        self._elections = elections
        self._voting = voting
        self._learned = learned
        self._pulse_s = pulse_s
        self._loop = asyncio.get_running_loop()
        self._told: dict[int, tuple[tuple[tuple[int, PartitionId, int], ...], dict[Group, Epoch]]] = {}
        """What the last pulse of each peer said that it leads, as it came and as it is read."""
        self._is_due = False

    def send(self) -> None:
        """Say to all that share a group what this node leads."""
        self._is_due = False
        peers = self._elections.peers
        if not peers:
            return
        pulse = Pulse(
            tuple((group.rule, group.partition, epoch.number) for group, epoch in self._elections.leading.items()),
            tuple(self._elections.unfit),
            self._elections.is_reluctant,
            self._topology.ring.partitions,
        )
        for number in peers:
            node = self._topology.node_of(number)
            assert node is not None, "peers are members"
            asked = self._asker.ask(node, pulse, timeout_s=PULSES_LOST * self._pulse_s)
            asked.add_done_callback(partial(self._answered, number, pulse.partitions))

    def send_soon(self) -> None:
        """Say what is news, once for all that is in this turn of the loop."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.send)

    def _answered(self, number: int, partitions: int, ended: asyncio.Future[Reply]) -> None:
        if error_of(ended) is not None:
            return
        reply = ended.result()
        if isinstance(reply, Pulsed):
            self._elections.answered(number, self._loop.time())
            for n, partition, epoch in reply.later if partitions == self._topology.ring.partitions else ():
                self._learned(Group(n, partition), epoch)

    async def hear(self, sender: NodeId, request: Pulse) -> Reply:
        """Hear from a peer that it lives, and what it leads.

        Raises:
            RefusedError: it is not a member.
        """
        number = self._voting.member(sender)
        if request.partitions not in (0, self._topology.ring.partitions):  # it lives: no more can be told from that
            self._elections.heard(number, {}, (), self._loop.time(), is_reluctant=request.is_reluctant)
            return Pulsed(())
        told, leading = self._told.get(number, ((), {}))
        if told != request.leading:  # nearly always it says what the last one said
            leading = {Group(n, partition): Epoch(e, number) for n, partition, e in request.leading}
            self._told[number] = request.leading, leading
        for group, epoch in self._elections.news(leading).items():
            self._learned(group, epoch)
        unfit = {Group(n, partition): None for n, partition in request.unfit}
        later = self._elections.heard(number, leading, unfit, self._loop.time(), is_reluctant=request.is_reluctant)
        return Pulsed(tuple((group.rule, group.partition, epoch) for group, epoch in later))

    def forget(self) -> None:
        """Forget what peers have said: partitions have other numbers by now."""
        self._told.clear()
