"""Every test of sockets runs on both event loops, ends within ten seconds and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

_LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


@pytest.fixture(params=sorted(_LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run_to_the_end(scenario: Coroutine[Any, Any, None]) -> None:
        complaints: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(10):
                await scenario
            left_over = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left_over

        with asyncio.Runner(loop_factory=_LOOPS[request.param]) as runner:
            runner.run(main())
        assert not complaints

    return run_to_the_end
