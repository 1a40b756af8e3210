"""Deliberate bugs in the native client; see `planting`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from merganser.client import calls, counting, crdts, errors, session
from merganser.client.session import Session
from merganser.model.client_messages import ClientGet
from merganser.model.crdt import OperationId
from merganser.model.errors import PeerLostError, UnavailableError
from sim.mutations.planting import CLIENTS, planted


@planted("siblings", mechanism=CLIENTS, likely=3, workload="native", hot_keys=1)
def client_sends_again_what_it_lost_sight_of(patch: pytest.MonkeyPatch) -> None:
    """The first try comes to be, is read and replaced, and then the second stands beside what replaced it."""
    real = errors.did_nothing
    patch.setattr(session, "did_nothing", lambda error: isinstance(error, PeerLostError) or real(error))


@planted("siblings", mechanism=CLIENTS, likely=1, workload="native", hot_keys=1)
def client_takes_an_unknown_outcome_for_none(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(session, "unknown", lambda error: UnavailableError(str(error)))


@planted("siblings", mechanism=CLIENTS, likely=2, workload="native")
def client_reads_any_one_replica(patch: pytest.MonkeyPatch) -> None:
    """As it may, at ONE, and not at the level it was asked for."""
    real = Session.send

    def send(asking: Session, node: Any, make: Any, deadline: float) -> Any:
        def at_one(within_ms: int) -> Any:
            request = make(within_ms)
            return msgspec.structs.replace(request, level="ONE") if isinstance(request, ClientGet) else request

        return real(asking, node, at_one, deadline)

    patch.setattr(Session, "send", send)


@planted("crdts", mechanism=CLIENTS, likely=1, workload="native-crdts")
def client_counts_again_what_it_lost_sight_of(patch: pytest.MonkeyPatch) -> None:
    """It sends an update once more, and not under an id."""
    real = calls.Calls.write

    async def write(asking: calls.Calls, *args: Any, **options: Any) -> Any:
        return await real(asking, *args, **{**options, "is_repeatable": True})

    patch.setattr(calls.Calls, "write", write)
    patch.setattr(crdts, "_EXACT", ())


@planted("crdts", mechanism=CLIENTS, likely=2, workload="native-crdts", hot_keys=1)
def client_sends_another_update_under_an_id_whose_outcome_it_does_not_know(patch: pytest.MonkeyPatch) -> None:
    """The first is made, and the second taken for made."""

    async def numbered(chain: Any, send: Any) -> Any:
        sent = await send(OperationId(chain.opened.session, chain.made + 1))
        chain.made += 1
        return sent

    patch.setattr(counting, "_numbered", numbered)


@planted("crdts", mechanism=CLIENTS, workload="native-crdts", nemesis="none")
def client_begins_anew_in_a_session_at_a_key_that_it_has_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(counting, "KEYS_MAX", 1)
    patch.setattr(counting.Counting, "_forget", lambda kept: kept._chains.clear())
