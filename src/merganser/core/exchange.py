"""What two replicas that compare a partition ask each other next, and which keys differ.

One side, the initiator, walks down from the roots of the hash trees. Each question is put to both sides; where the
answers are equal there is nothing more to ask::

    root --> branches --> leaves --> twigs --> survey --> tally --> listing ---full, or all is listed---+
     |          |           |          ^         ^         ^ |        ^ |                               |
     |equal     |           |          |         |         +-+        +-+ next page                     v
     v          v           v          |         |                             pausing --> second look --> meeting
    (over) <----+-----------+          +---------+------------------ more is left -----------------------+ |
      ^                                                                                                    |
      +------------------------------------------ nothing is left -----------------------------------------+

A leaf is one range of tokens. Of a large partition the initiator's tree knows twigs, 32 to a leaf, and only those that
differ are gone through; else (`without_twigs`: it has none, or the peer is of a version that cannot tell) the leaves
are. Both are *stretches*.

All rows of a partition key have one token, so a stretch may hold any number of rows: the initiator surveys its own, and
of those with more than a few rows it asks for sums by bucket, a hash of the key, first. The number of buckets follows
from the initiator's rows alone: if the peer has many more, those are to travel anyway.

*Double confirmation*: a key counts as different if it was, with the same fingerprints on both sides, at both of two
looks that are further apart than a write takes. What moved meanwhile is a write in flight. A walk that does not confirm
takes every difference of the first look, for one who has to know that what both held when it began is on both sides.

That the two sides are looked at at different moments does no harm: what compares equal was held here at one moment and
there at another, both after the walk began, and rows only grow, or are purged by right (`core.horizon`).

Invariants:
- at most `DIFFERENCES_MAX` keys and one page are kept, however much differs;
- each key that differed throughout is met once, unless it is damaged on either side;
- no key is met that was equal whenever it was looked at;
- an answer that breaks the rules of its kind is a `CorruptionError`; any other brings the end nearer.

Source: DeCandia 2007 §4.7 (Merkle trees); Riak's active anti-entropy (fingerprints confirmed a second time); design §4.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import TypeVar

import mmh3
import msgspec

from merganser.core.hash_tree import FANOUT, LEAVES, STRETCHES, stretches_in
from merganser.model.errors import CorruptionError
from merganser.model.messages import Listed, Region

DAMAGED = 0
"""Instead of the fingerprint of a row whose checksum is wrong."""

LEAVES_MAX = 32  # surveyed at a time, or looked at twig by twig
STRETCHES_MAX = 256  # the same of twigs, each a 32th of a leaf
DIFFERENCES_MAX = 4096  # kept until they are met: with keys of 1 KB, 4 MB
LOOK_KEYS_MAX = 1024
MEET_KEYS_MAX = 256
WIDE_ROWS = 6  # listing so many takes as many bytes as their sums and what is listed then
ROWS_PER_BUCKET = 16  # where many rows of a stretch differ
BUCKET_KEYS = 4  # the sum of a bucket takes 9 bytes on the wire, a key some 40
BUCKET_BITS_MAX = 14
BUCKETS_MAX = 1 << BUCKET_BITS_MAX
"""128 KB of sums for a leaf of a million rows, some 60 a bucket."""
BUCKETS_TOGETHER_MAX = 4096  # asked for at a time, but for one stretch, which may have more
DAMAGED_MAX = 1024  # told by name

Fingerprint = int


class StretchSurvey(msgspec.Struct, frozen=True):
    """A leaf or a twig as its own replica sees it, row by row."""

    rows: int
    sums: Mapping[int, Fingerprint]
    """XOR of the fingerprints by bucket, of `BUCKETS_MAX`."""

    @property
    def total(self) -> Fingerprint:
        """XOR of all fingerprints."""
        return reduce(operator.xor, self.sums.values(), 0)


class LookAtNodes(msgspec.Struct, frozen=True):
    """Look at nodes of both trees; goes on with `Exchange.looked`."""

    level: int
    positions: tuple[int, ...]


class LookAtTwigs(msgspec.Struct, frozen=True):
    """Look at the twigs of these leaves on both sides; goes on with `Exchange.looked_at_twigs` or `without_twigs`."""

    leaves: tuple[int, ...]


class Survey(msgspec.Struct, frozen=True):
    """Go through one's own rows of these stretches; goes on with `Exchange.surveyed`."""

    stretches: tuple[int, ...]


class TallyStretches(msgspec.Struct, frozen=True):
    """Ask the peer for the sums of the first of these, as many as suit; goes on with `Exchange.tallied`."""

    stretches: tuple[int, ...]
    buckets: tuple[int, ...]
    """How many of each."""


class ListRegions(msgspec.Struct, frozen=True):
    """List a page of both sides' keys; goes on with `Exchange.listed`."""

    regions: tuple[Region, ...]
    start: bytes


class Pause(msgspec.Struct, frozen=True):
    """Let writes in flight come to their end; goes on with `Exchange.paused`."""


class SecondLook(msgspec.Struct, frozen=True):
    """Look at keys of both sides again; goes on with `Exchange.looked_again`."""

    keys: tuple[bytes, ...]


class MeetKeys(msgspec.Struct, frozen=True):
    """Become equal in the first of these keys, as many as suit; goes on with `Exchange.met`."""

    keys: tuple[bytes, ...]


Step = LookAtNodes | LookAtTwigs | Survey | TallyStretches | ListRegions | Pause | SecondLook | MeetKeys
_S = TypeVar("_S", LookAtNodes, LookAtTwigs, Survey, TallyStretches, ListRegions, Pause, SecondLook, MeetKeys)


def bucket_of(key: bytes, buckets: int) -> int:
    """Return which of ``buckets`` (a power of two) ``key`` falls into: the first bits of a hash."""
    return mmh3.hash(key, signed=False) * buckets >> 32


def check_buckets(buckets: int) -> None:
    """Return if ``buckets`` is a number of buckets.

    Raises:
        CorruptionError: it is not.
    """
    if not 1 <= buckets <= BUCKETS_MAX or buckets & (buckets - 1):
        raise CorruptionError(f"buckets must be a power of two up to {BUCKETS_MAX}, not {buckets}")


def check_regions(regions: Sequence[Region]) -> None:
    """Return if ``regions`` can be listed.

    Raises:
        CorruptionError: they cannot.
    """
    check_stretches([region.stretch for region in regions])
    for region in regions:
        check_buckets(region.buckets)
        chosen = region.chosen
        if not chosen or not _ascend(chosen) or chosen[0] < 0 or chosen[-1] >= region.buckets:
            raise CorruptionError(
                f"buckets of stretch {region.stretch} must be chosen from 0 to {region.buckets - 1}, ascending"
            )


def check_stretches(stretches: Sequence[int]) -> None:
    """Return if ``stretches`` are those of a listing: leaves or twigs, in the order of their keys.

    Raises:
        CorruptionError: they are not.
    """
    if not stretches or not _ascend(stretches) or not 0 <= stretches[0] <= stretches[-1] < STRETCHES:
        raise CorruptionError(f"stretches must be of 0 to {STRETCHES - 1}, ascending")
    if stretches[0] < LEAVES <= stretches[-1] or len(stretches) > _most(stretches[0]):
        raise CorruptionError(f"it must be of {LEAVES_MAX} leaves at most, or of {STRETCHES_MAX} twigs")


def check_leaves(leaves: Sequence[int]) -> None:
    """Return if the twigs of ``leaves`` can be looked at.

    Raises:
        CorruptionError: they cannot.
    """
    check_stretches(leaves)
    if leaves[-1] >= LEAVES:
        raise CorruptionError(f"leaves are 0 to {LEAVES - 1}, not {leaves[-1]}")


def check_tallies(stretches: Sequence[int], buckets: Sequence[int]) -> None:
    """Return if so many ``buckets`` of each of ``stretches`` can be asked for together.

    Raises:
        CorruptionError: they cannot.
    """
    check_stretches(stretches)
    if len(buckets) != len(stretches):
        raise CorruptionError(f"{len(buckets)} numbers of buckets for {len(stretches)} stretches")
    for number in buckets:
        check_buckets(number)
    if len(buckets) > 1 and sum(buckets) > BUCKETS_TOGETHER_MAX:
        raise CorruptionError(f"{sum(buckets)} buckets are too many: {BUCKETS_TOGETHER_MAX} can be asked for together")


class Exchange:
    """The initiator's walk; do what `step` says, tell what came of it, until there is none."""

    def __init__(self, *, confirms: bool, meets: bool) -> None:
        """Begin at the roots.

        Args:
            confirms: count a difference only when it is there at a second look.
            meets: let the differing keys meet; else they are only counted.
        """
        self.differing = 0
        """Keys."""
        self.in_flight = 0
        """Keys that differed at the first look and had changed by the second."""
        self.damaged: list[bytes] = []
        """Keys that cannot be compared, the first `DAMAGED_MAX` of them."""
        self.listed_keys = 0
        """Of the peer."""
        self.step: Step | None = LookAtNodes(0, (0,))
        self._confirms = confirms
        self._meets = meets
        self._leaves: list[int] = []
        self._twigs: list[int] = []
        """Stretches."""
        self._has_twigs = True
        self._sums: list[tuple[int, list[Fingerprint]]] = []
        """Of a stretch, its own, by bucket."""
        self._regions: list[Region] = []
        self._start: bytes | None = None
        self._found: dict[bytes, tuple[Fingerprint | None, Fingerprint | None]] = {}
        self._to_look_at: list[bytes] = []
        self._to_meet: list[bytes] = []

    def looked(self, mine: Sequence[Fingerprint], theirs: Sequence[Fingerprint]) -> None:
        """Go on to the nodes below those that differ."""
        step = self._now(LookAtNodes)
        _check_length(theirs, len(step.positions))
        pairs = zip(step.positions, mine, theirs, strict=True)
        differing = [position for position, one, other in pairs if one != other]
        if step.level == 2:
            self._leaves = differing
            self._go_on()
        elif not differing:
            self.step = None
        elif step.level == 0:
            self.step = LookAtNodes(1, tuple(range(FANOUT)))
        else:
            self.step = LookAtNodes(2, tuple(leaf for branch in differing for leaf in _leaves_of(branch)))

    def looked_at_twigs(self, mine: Sequence[Fingerprint], theirs: Sequence[Fingerprint]) -> None:
        """Go on to the twigs that differ; both sides' are of all leaves asked for, one leaf after the other."""
        step = self._now(LookAtTwigs)
        stretches = [stretch for leaf in step.leaves for stretch in stretches_in(leaf)]
        _check_length(theirs, len(stretches))
        pairs = zip(stretches, mine, theirs, strict=True)
        self._twigs += [stretch for stretch, one, other in pairs if one != other]
        del self._leaves[: len(step.leaves)]
        self._go_on()

    def without_twigs(self) -> None:
        """Go through whole leaves: one side cannot tell what their twigs are."""
        self._now(LookAtTwigs)
        self._has_twigs = False
        self._go_on()

    def surveyed(self, mine: Sequence[StretchSurvey]) -> None:
        """Ask for sums of the wide stretches, and list the others whole."""
        step = self._now(Survey)
        for stretch, survey in zip(step.stretches, mine, strict=True):
            if survey.rows <= WIDE_ROWS:
                self._regions.append(Region(stretch))
            else:
                self._sums.append((stretch, _folded(survey.sums, _buckets_for(survey.rows))))
        self._go_on()

    def tallied(self, theirs: Sequence[Sequence[Fingerprint]]) -> None:
        """List the buckets that differ of the first stretches, as many as ``theirs`` are."""
        step = self._now(TallyStretches)
        if not 1 <= len(theirs) <= len(step.stretches):
            raise CorruptionError(f"the peer tallied {len(theirs)} of {len(step.stretches)} stretches")
        for (stretch, mine), others in zip(self._sums, theirs, strict=False):
            buckets = len(mine)
            _check_length(others, buckets)
            chosen = tuple(bucket for bucket in range(buckets) if mine[bucket] != others[bucket])
            if len(chosen) == buckets:
                self._regions.append(Region(stretch))
            elif chosen:
                self._regions.append(Region(stretch, buckets, chosen))
        del self._sums[: len(theirs)]
        self._go_on()

    def listed(self, mine: Listed, theirs: Listed) -> None:
        """Note the keys that differ, as far as both pages reach, and go on behind that."""
        step = self._now(ListRegions)
        _check_page(theirs, step.start)
        self.listed_keys += len(theirs.entries)
        resumes = [page.resume for page in (mine, theirs) if page.resume is not None]
        reach = min(resumes, default=None)
        ours, others = (dict(_until(page, reach)) for page in (mine, theirs))
        for key in sorted(ours.keys() | others.keys()):
            one, other = ours.get(key), others.get(key)
            if DAMAGED in (one, other):
                self._note_damaged(key)
            elif one != other:
                self._found[key] = one, other
        self._start = reach
        if reach is None:
            self._regions = []
        self._go_on()

    def paused(self) -> None:
        """Look again at what differed."""
        self._now(Pause)
        self._to_look_at = list(self._found)
        self._look_again()

    def looked_again(self, mine: Sequence[Fingerprint | None], theirs: Sequence[Fingerprint | None]) -> None:
        """Keep what is as it was."""
        step = self._now(SecondLook)
        _check_length(theirs, len(step.keys))
        for key, *now in zip(step.keys, mine, theirs, strict=True):
            if tuple(now) == self._found.pop(key):
                self._differs(key)
            elif DAMAGED in now:
                self._note_damaged(key)
            else:
                self.in_flight += 1
        del self._to_look_at[: len(step.keys)]
        self._look_again()

    def met(self, count: int) -> None:
        """Go on behind the first ``count`` of the keys."""
        step = self._now(MeetKeys)
        if not 1 <= count <= len(step.keys):
            raise CorruptionError(f"of {len(step.keys)} keys to meet, {count} have been met")
        del self._to_meet[:count]
        self._go_on()

    def _go_on(self) -> None:
        is_more_left = bool(self._leaves or self._twigs or self._sums or self._regions)
        if self._to_meet:
            self.step = MeetKeys(tuple(self._to_meet[:MEET_KEYS_MAX]))
        elif self._found and (len(self._found) >= DIFFERENCES_MAX or not is_more_left):
            self._settle()
        elif self._sums:
            self.step = self._tally()
        elif self._regions:
            if self._start is None:
                self._regions.sort(key=lambda region: region.stretch)
            self.step = ListRegions(tuple(self._regions), self._start or b"")
        elif self._leaves and self._has_twigs and len(self._twigs) < STRETCHES_MAX:
            self.step = LookAtTwigs(tuple(self._leaves[:LEAVES_MAX]))
        elif self._twigs:
            self.step = Survey(tuple(self._twigs[:STRETCHES_MAX]))
            del self._twigs[:STRETCHES_MAX]
        elif self._leaves:
            self.step = Survey(tuple(self._leaves[:LEAVES_MAX]))
            del self._leaves[:LEAVES_MAX]
        else:
            self.step = None

    def _tally(self) -> TallyStretches:
        """Return the question for the sums of as many stretches as go together."""
        count, buckets = 1, len(self._sums[0][1])
        for _, mine in self._sums[1:]:
            buckets += len(mine)
            if buckets > BUCKETS_TOGETHER_MAX:
                break
            count += 1
        together = self._sums[:count]
        return TallyStretches(tuple(stretch for stretch, _ in together), tuple(len(mine) for _, mine in together))

    def _settle(self) -> None:
        if self._confirms:
            self.step = Pause()
            return
        for key in self._found:
            self._differs(key)
        self._found.clear()
        self._go_on()

    def _look_again(self) -> None:
        if self._to_look_at:
            self.step = SecondLook(tuple(self._to_look_at[:LOOK_KEYS_MAX]))
        else:
            self._go_on()

    def _differs(self, key: bytes) -> None:
        self.differing += 1
        if self._meets:
            self._to_meet.append(key)

    def _note_damaged(self, key: bytes) -> None:
        if len(self.damaged) < DAMAGED_MAX:
            self.damaged.append(key)

    def _now(self, kind: type[_S]) -> _S:
        assert isinstance(self.step, kind), f"{self.step} is to be done"
        return self.step


def _leaves_of(branch: int) -> range:
    return range(branch * FANOUT, (branch + 1) * FANOUT)


def _buckets_for(rows: int) -> int:
    """Return the number of buckets with which sums, and the keys of one bucket that differs, take the fewest bytes.

    Of wide stretches more differ: there it is one bucket for `ROWS_PER_BUCKET` rows.
    """
    wanted = max(rows // ROWS_PER_BUCKET, math.isqrt(BUCKET_KEYS * rows))
    return min(BUCKETS_MAX, 1 << wanted.bit_length())


def _most(stretch: int) -> int:
    """Return how many stretches like this one go together."""
    return LEAVES_MAX if stretch < LEAVES else STRETCHES_MAX


def _folded(sums: Mapping[int, Fingerprint], buckets: int) -> list[Fingerprint]:
    """Return the sums of fewer, larger buckets."""
    shift = BUCKET_BITS_MAX - (buckets.bit_length() - 1)
    folded = [0] * buckets
    for bucket, fingerprint in sums.items():
        folded[bucket >> shift] ^= fingerprint
    return folded


def _until(page: Listed, reach: bytes | None) -> Sequence[tuple[bytes, Fingerprint]]:
    return page.entries if reach is None else [entry for entry in page.entries if entry[0] < reach]


def _check_length(answers: Sequence[object], length: int) -> None:
    if len(answers) != length:
        raise CorruptionError(f"the peer gave {len(answers)} answers to {length} questions")


def _check_page(page: Listed, start: bytes) -> None:
    listed = [key for key, _ in page.entries]
    if listed and (listed[0] < start or (page.resume is not None and listed[-1] >= page.resume)):
        raise CorruptionError("the peer listed keys that it was not asked for")
    if not all(one < other for one, other in pairwise(listed)):
        raise CorruptionError("the peer listed keys out of order")
    if page.resume is not None and page.resume <= start:
        raise CorruptionError("the peer's listing does not go on")


def _ascend(numbers: Sequence[int]) -> bool:
    return all(one < other for one, other in pairwise(numbers))
