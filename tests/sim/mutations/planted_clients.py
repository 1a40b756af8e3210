"""Deliberate bugs in the native client; see `planting`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from merganser.client import errors, session
from merganser.client.session import Session
from merganser.model.client_messages import ClientGet
from merganser.model.errors import PeerLostError, UnavailableError
from sim.mutations.planting import CLIENTS, planted


@planted("siblings", mechanism=CLIENTS, workload="native", hot_keys=1, likely=1)
def client_sends_again_what_it_lost_sight_of(patch: pytest.MonkeyPatch) -> None:
    """The first try comes to be, is read and replaced, and then the second stands beside what replaced it."""
    real = errors.did_nothing
    patch.setattr(session, "did_nothing", lambda error: isinstance(error, PeerLostError) or real(error))


@planted("siblings", mechanism=CLIENTS, workload="native", hot_keys=1, likely=1)
def client_takes_an_unknown_outcome_for_none(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "unknown", lambda error: UnavailableError(str(error)))


@planted("siblings", mechanism=CLIENTS, workload="native", likely=2)
def client_reads_any_one_replica(patch: pytest.MonkeyPatch) -> None:
    """As it may, at ONE, and not at the level it was asked for."""
    real = Session.send

    def send(asking: Session, node: Any, make: Any, deadline: float) -> Any:
        def at_one(within_ms: int) -> Any:
            request = make(within_ms)
            return msgspec.structs.replace(request, level="ONE") if isinstance(request, ClientGet) else request

        return real(asking, node, at_one, deadline)

    patch.setattr(Session, "send", send)
