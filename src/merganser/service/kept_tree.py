"""The hash tree of one partition as `service.hash_trees` keeps it: with what it takes to keep it true."""

from __future__ import annotations

from merganser.core.hash_tree import HashTree
from merganser.service.counts import Counter
from merganser.service.expiry_index import Expiring
from merganser.service.local_indexes import LocalKeys
from merganser.service.tag_index import TagIndex


class KeptTree:
    """The tree of one partition; see `service.hash_trees`."""

    __slots__ = (
        "counted_to",
        "counter",
        "expiring",
        "flawed",
        "has_image",
        "image_has_twigs",
        "is_plain",
        "local_keys",
        "problem",
        "seed",
        "tags",
        "tree",
    )

    def __init__(
        self,
        tree: HashTree,
        seed: int,
        counted_to: bytes | None,
        local_keys: LocalKeys | None,
        expiring: Expiring | None,
        counter: Counter,
        *,
        tags: TagIndex | None = None,
        has_image: bool = False,
    ) -> None:
        """Keep ``tree``; the other arguments are told of below."""
        self.tree = tree
        self.seed = seed
        self.counted_to = counted_to
        """The tree tells of the rows before this key; None: of all."""
        self.local_keys = local_keys
        """Of the table's local indexes, None if it has none."""
        self.expiring = expiring
        """How the table's items expire, None if they do not."""
        self.tags = tags
        """If the table's values may have any."""
        self.counter = counter
        """Of the items before ``counted_to``."""
        self.has_image = has_image
        self.image_has_twigs = has_image and tree.has_twigs
        self.is_plain = False
        """It tells of all rows, there is no image, and something has changed since the last look."""
        self.flawed: set[int] = set()
        """Leaves in which a damaged row was met when they were counted."""
        self.problem: str | None = None
        """Why it could not be counted on."""
