"""A voter of the cluster map: the shell of `core.register.AcceptorState`, which decides what it answers."""

from __future__ import annotations

import msgspec

from merganser.core import cluster_map
from merganser.core.register import AcceptorState
from merganser.model import versions
from merganser.model.cluster import ClusterMap
from merganser.model.messages import Accept, Accepted, Ballot, Prepare, Promise
from merganser.storage import keys
from merganser.storage.engine import Batch, Engine
from merganser.storage.values import seal, unseal

_REGISTER_KEY = keys.metadata_key("register")


class Acceptor:
    """This node's vote on the register: the pure state, kept on disk before every answer."""

    def __init__(self, engine: Engine, founding: ClusterMap, *, newest: int = versions.NEWEST) -> None:
        """Continue from what the engine holds; a fresh one holds ``founding``. No map above ``newest`` is accepted."""
        self._newest = newest
        self._engine = engine
        stored = engine.get(_REGISTER_KEY)
        if stored is None:
            self._state = AcceptorState(value=founding)
        else:
            self._state = msgspec.msgpack.decode(unseal(_REGISTER_KEY, stored), type=AcceptorState)

    async def prepare(self, request: Prepare) -> Promise:
        """Promise to refuse older ballots, durably."""
        state, promise = self._state.prepare(request.ballot)
        await self._keep(state)
        return promise

    async def accept(self, request: Accept) -> Accepted:
        """Accept a value unless a newer ballot was promised, durably."""
        cluster_map.check(request.value, newest=self._newest)
        state, accepted = self._state.accept(request.ballot, request.value)
        await self._keep(state)
        return accepted

    async def rejoin(self, ballot: Ballot, value: ClusterMap) -> None:
        """Hold to ``ballot``, under which the others have accepted ``value`` since this voter lost its memory."""
        await self._keep(AcceptorState(ballot, ballot, value))

    async def _keep(self, state: AcceptorState) -> None:
        if state is not self._state:
            self._engine.commit(Batch().put(_REGISTER_KEY, seal(_REGISTER_KEY, msgspec.msgpack.encode(state))))
            self._state = state
        await self._engine.durable()
