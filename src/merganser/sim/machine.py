"""One simulated machine: a member over a disk that forgets what was not synced, or worse (`sim.disk`).

down --start()--> founding --a map names it--> up --crash()--> down
                                               | ^
                                       pause() v | resume()
                                              paused

Paused, it does nothing, as after SIGSTOP: its timers and messages wait, and connections to it stay open.
A power cut ends a pause as well.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

import msgspec

from merganser.core.admission import AdmissionLimits
from merganser.model.cluster import NodeRecord
from merganser.model.errors import InvariantError, StorageFailedError, UnavailableError
from merganser.model.ids import NodeId
from merganser.model.versions import SPOKEN
from merganser.service.anti_entropy import REPAIR_INTERVAL_S
from merganser.service.counts import Measure
from merganser.service.expiry_index import Expiry
from merganser.service.founding import Founding
from merganser.service.joining import Joining
from merganser.service.local_indexes import LocalIndexer, LocalMeasurer
from merganser.service.member import CLOCK_SKEW_MAX_S, Member
from merganser.service.purger import MARGIN_US, PURGE_INTERVAL_S
from merganser.service.scrubber import SCRUB_INTERVAL_S
from merganser.service.steps import Evaluator, Indexer
from merganser.service.table_ends import Ends
from merganser.sim import indexes, steps
from merganser.sim.disk import SimulatedDisk
from merganser.sim.local_keys import local_indexer
from merganser.sim.loop import Incarnation, SimulatedLoop
from merganser.sim.network import SimulatedNetwork, SimulatedTransport
from merganser.sim.witness import Witness
from merganser.storage.memory import MemoryEngine

T = TypeVar("T")

IN_FLIGHT_S = 2.5  # simulated clients give a request two seconds
EPOCH_US = 1_700_000_000_000_000  # virtual time begins here
TWIGS_FROM_ROWS = 1  # of the partitions of a run most have twigs in their hash trees, some come to have them
EXPIRY_LOOK_S = 0.5  # what is due is removed while the clients still work
TREES_LOOK_S = 0.5  # images of hash trees come and go between two requests, as they do in hours of real life


class Machine:
    """A machine of the simulated cluster; see the module's docstring."""

    def __init__(
        self,
        loop: SimulatedLoop,
        network: SimulatedNetwork,
        rng: random.Random,
        *,
        address: str,
        zone: str,
        data_center: str = "",
        seeds: tuple[str, ...],
        partitions: int,
        join: str = "",
        witness: Witness | None = None,
        engine_type: type[MemoryEngine] = MemoryEngine,
    ) -> None:
        """Put a machine with an empty disk on the network, not started.

        It founds a cluster with those at ``seeds``, or joins that of the machine at ``join`` if there is one.
        """
        self.address = address
        self.witness = witness or Witness()
        self.skew_us = 0
        """How far the wall clock is off, apart from what it drifts."""
        self.latest_wall_us = 0
        """The latest time that the wall clock was seen to show."""
        self._drift = 0.0
        self._drifts_since_s = 0.0
        self.clock_skew_max_s = CLOCK_SKEW_MAX_S
        self.limits: AdmissionLimits | None = None
        self.purge_interval_s = PURGE_INTERVAL_S
        self.purge_margin_us = MARGIN_US
        self.repair_interval_s = REPAIR_INTERVAL_S
        self.scrub_interval_s = SCRUB_INTERVAL_S
        self.trees_look_s = TREES_LOOK_S
        self.probe_s = 0.0
        self.twigs_from_rows = TWIGS_FROM_ROWS
        self.evaluators: Mapping[str, Evaluator] = {steps.WIRE: steps.evaluate}
        """What its members do to items of leader-based tables, by wire."""
        self.local_indexers: Mapping[str, LocalIndexer] = {steps.WIRE: local_indexer}
        """How they index the items of one partition key, by wire."""
        self.local_measurers: Mapping[str, LocalMeasurer] = {}
        """How large what those show of items is, by wire."""
        self.indexers: Mapping[str, Indexer] = {steps.WIRE: indexes.entries}
        """What items are in the indexes of their tables, by wire."""
        self.expiries: Mapping[str, Expiry] = {steps.WIRE: steps.expiring}
        """How items of leader-based tables expire, by wire."""
        self.measures: Mapping[str, Measure] = {steps.WIRE: steps.measure}
        """What items of leader-based tables are, by wire."""
        self.ends: Mapping[str, Ends] = {steps.WIRE: steps.ends_ms}
        """When tables are to go, by wire."""
        self.accepts_loss = False
        """All eight of its next lives."""
        self.versions = SPOKEN
        """What its next lives speak."""
        self.wire_addresses: dict[str, str] = {}
        self.when_gone: Callable[[Machine], None] = lambda _machine: None
        """Told when its node is a member no more."""
        self.member: Member | None = None
        self.errors: list[BaseException] = []
        self.lives = 0
        self._loop = loop
        self._network = network
        self._rng = rng
        self._record = NodeRecord(NodeId(f"{rng.getrandbits(64):016x}"), 0, address, {}, zone, data_center=data_center)
        self._seeds = seeds
        self._join = join
        self._partitions = partitions
        self.partition_bits = partitions.bit_length() - 1
        """Of a token, the first."""
        self.disk = SimulatedDisk(loop, rng, engine_type)
        self.engine = self.disk.engine
        self._incarnation: Incarnation | None = None

    @property
    def node(self) -> NodeId:
        """Who it is, in all its lives."""
        return self._record.id

    @property
    def data_center(self) -> str:
        """Where it stands."""
        return self._record.data_center

    @property
    def zone(self) -> str:
        """The part of its data centre that it stood in when it was made."""
        return self._record.zone

    @property
    def is_up(self) -> bool:
        """Tell whether the machine runs (it may still be founding)."""
        return self._incarnation is not None and not self._incarnation.is_dead

    @property
    def is_paused(self) -> bool:
        """Tell whether the machine is stopped, to go on later."""
        return self._incarnation is not None and self._incarnation.is_paused

    def wall_us(self) -> int:
        """Return what the machine's wall clock shows."""
        now_s = self._loop.time()
        drifted_s = self._drift * (now_s - self._drifts_since_s) if self._drift else 0.0
        shown_us = EPOCH_US + int((now_s + drifted_s) * 1e6) + self.skew_us
        self.latest_wall_us = max(self.latest_wall_us, shown_us)
        return shown_us

    def drift(self, rate: float) -> None:
        """Let the wall clock gain ``rate`` seconds a second from now on; what it has drifted so far stays."""
        now_s = self._loop.time()
        self.skew_us += int(self._drift * (now_s - self._drifts_since_s) * 1e6)
        self._drift, self._drifts_since_s = rate, now_s

    def set_clock_right(self) -> None:
        """Show the true time from now on."""
        self.skew_us, self._drift = 0, 0.0

    def start(self) -> None:
        """Begin a new life on the disk that the last one left."""
        if self.is_up:
            raise InvariantError(f"{self.address} is up")
        self.lives += 1
        self.disk.spin_up()
        self._incarnation = Incarnation(self.address)
        transport = SimulatedTransport(
            self._network, self._incarnation, self.address, self._record.id, self._rng, versions=self.versions
        )
        self.spawn(self._live(transport)).add_done_callback(self._note_failure)

    def crash(self) -> None:
        """Cut the power: what runs stops where it is, and a seeded part of what was not synced is lost."""
        if self._incarnation is None:
            raise InvariantError(f"{self.address} never ran")
        self._incarnation.is_dead = True
        self._loop.resume(self._incarnation)
        self.member = None
        self._network.detach(self.address)
        kept = self.disk.power_cut()
        self._loop.note("crash", self.address, kept)

    def image(self) -> dict[bytes, bytes]:
        """Copy the disk, as a backup of the whole data directory would: what is synced, metadata included."""
        return self.engine.image()

    def restore(self, image: dict[bytes, bytes]) -> None:
        """Put an old copy of the disk back; the machine is down."""
        if self.is_up:
            raise InvariantError(f"{self.address} is up: crash it before its disk is put back")
        self._loop.note("restore", self.address)
        self.engine.restore(image)

    def pause(self) -> None:
        """Stop everything on this machine until `resume`; nothing is lost, and time goes on."""
        if self._incarnation is None or self._incarnation.is_dead:
            raise InvariantError(f"{self.address} is down")
        self._incarnation.is_paused = True
        self._loop.note("pause", self.address)

    def resume(self) -> None:
        """Go on after `pause`; does nothing if the machine was not paused, or has lost power since."""
        if self.is_paused and self._incarnation is not None:
            self._loop.note("resume", self.address)
            self._loop.resume(self._incarnation)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` on this machine; it dies with it."""
        if self._incarnation is None:
            raise UnavailableError(f"{self.address} is down")
        return self._loop.spawn(self._incarnation, work)

    async def _live(self, transport: SimulatedTransport) -> None:
        way_in = self._way_in(transport)
        transport.serve(way_in.serve)
        current = await way_in.membership()
        member = Member(
            self._record.id,
            current,
            engine=self.engine,
            transport=transport,
            wall_us=self.wall_us,
            rng=self._rng,
            on_error=self.errors.append,
            limits=self.limits,
            purge_interval_s=self.purge_interval_s,
            purge_margin_us=self.purge_margin_us,
            repair_interval_s=self.repair_interval_s,
            scrub_interval_s=self.scrub_interval_s,
            in_flight_s=IN_FLIGHT_S,
            evaluators=self.evaluators,
            local_indexers=self.local_indexers,
            local_measurers=self.local_measurers,
            indexers=self.indexers,
            expiries=self.expiries,
            expiry_look_s=EXPIRY_LOOK_S,
            measures=self.measures,
            ends=self.ends,
            trees_look_s=self.trees_look_s,
            probe_s=self.probe_s,
            twigs_from_rows=self.twigs_from_rows,
            clock_skew_max_s=self.clock_skew_max_s,
        )
        if self.accepts_loss:
            await member.wholeness.accept()
        member.topology.when_gone = lambda: self.when_gone(self)
        self.witness.born(member)
        transport.serve(functools.partial(self.witness.serve, member))
        member.start(self.wire_addresses)
        self.member = member

    def _way_in(self, transport: SimulatedTransport) -> Founding | Joining:
        me = msgspec.structs.replace(self._record, speaks=transport.versions.newest)
        if self._join:
            return Joining(me, self._join, self.engine, transport, rng=self._rng, progress=lambda _member, _why: None)
        return Founding(
            me,
            self._seeds,
            self.engine,
            transport,
            partitions=self._partitions,
            rng=self._rng,
            progress=lambda _seed, _why: None,
        )

    def _note_failure(self, life: asyncio.Task[None]) -> None:
        error = None if life.cancelled() else life.exception()
        if isinstance(error, StorageFailedError) and self.engine.failure is not None:
            return  # it cannot become a member on a disk that has failed; whoever called that fault restarts it
        if error is not None:
            self.errors.append(error)
