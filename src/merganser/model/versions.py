"""Which versions of what nodes say and store this build speaks, and how two nodes agree on one.

One number counts the frames between peers, the messages in them, the cluster map and every stored format. A node
speaks a range of versions. Two nodes use the newest one that both speak, for each connection; the cluster as a whole
uses what the map says (`ClusterMap.version`), which is raised once every member speaks it, and never lowered.

How something changes without breaking an older peer:

- A message gets a field: at its end, with a default that means what its absence meant. An older peer skips it, and that
  must be right; no new version then.
- A message of a new kind: a new version, and a line in `messages.SINCE`. It is never sent to a peer that lacks it: the
  request fails as one that was not sent (`PeerTooOldError`), and its sender does what it did before there was that
  kind. Its reply may be new, too; replies to older requests stay what they were.
- A stored format, a kind of table, or a meaning changes: a new version, and nobody makes use of it before the map says
  that version, because a replica that cannot read it may be given it at any time.

2  the first that was spoken
3  greetings tell a range; the map tells what its members speak; tables whose rows have a causal context;
   partitions that change hands
4  data centres, and tables with a policy; native clients; values that are described (content type, metadata,
   tags), tables of keys and values where the last write wins; lists of keys without their values; rings that are cut
   finer; values that merge themselves; twigs of hash trees, and several tallies together, of replicas that compare a
   partition
"""

from __future__ import annotations

import msgspec

OLDEST, NEWEST = 2, 4
CAUSAL_SINCE = 3
"""Tables whose rows have a causal context: an older replica could not merge them."""
MERGING_SINCE = 4
"""Tables of values that merge themselves: an older replica would not fold what was counted when it purges."""
MOVES_SINCE = 3
"""Partitions that change hands: an older replica would not write to who is to hold them."""
CLIENTS_SINCE = 4
"""Native clients: an older node takes a client for a node, and knows none of what it asks."""
POLICIES_SINCE = 4
"""Tables with a policy: an older replica would hold them, and hints for them, where they may not be."""

DESCRIBED_SINCE = 4
"""Values with content type, metadata, tags or a client's name, and tables of values where the last write wins: an older
node would show what is said about a value as a part of it, and keep no index of its tags."""
LISTS_SINCE = 4
"""Lists of keys without their values: an older replica does not know that question."""
SPLITS_SINCE = 4
"""Rings that are cut finer: an older replica would go on with what it keeps by partition, under other numbers."""


class Versions(msgspec.Struct, frozen=True):
    """A range of versions, both ends included."""

    oldest: int = OLDEST
    newest: int = NEWEST

    def __str__(self) -> str:
        """Return it as messages show it."""
        return str(self.oldest) if self.oldest == self.newest else f"{self.oldest} to {self.newest}"

    def common(self, other: Versions) -> int | None:
        """Return the newest version that both speak, None if there is none."""
        newest = min(self.newest, other.newest)
        return newest if newest >= max(self.oldest, other.oldest) else None


class Versioned(msgspec.Struct, frozen=True):
    """What can be read of a cluster map of any version."""

    version: int = OLDEST


SPOKEN = Versions()
