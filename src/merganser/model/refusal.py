"""How a node says that it did not do what it was asked; part of `model.messages`."""

from __future__ import annotations

import msgspec

from merganser.model.leadership import NO_EPOCH, Epoch


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=199):
    """The request was not done. Codes are those of `service.replica`."""

    code: str
    message: str
    map_epoch: int = 0
    epoch: Epoch = NO_EPOCH
    """The latest that the node knows of the group that was asked for."""
