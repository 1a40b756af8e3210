"""A thread with a loop: what other threads wait for when it is stopped comes to an end."""

from __future__ import annotations

import asyncio
import threading

import pytest

from merganser.client.blocking import Runner
from merganser.client.errors import ClosedError
from merganser.model.errors import UnknownOutcomeError

PATIENCE_S = 20.0


async def for_ever(has_begun: threading.Event) -> None:
    has_begun.set()
    await asyncio.get_running_loop().create_future()


def test_who_waits_is_told_when_another_thread_stops_it() -> None:
    runner, has_begun, told = Runner(), threading.Event(), list[UnknownOutcomeError]()
    runner.start()

    def wait() -> None:
        try:
            runner.run(lambda: for_ever(has_begun))
        except UnknownOutcomeError as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert has_begun.wait(PATIENCE_S)
    runner.stop()
    waiting.join(PATIENCE_S)
    assert len(told) == 1


def test_it_can_be_stopped_twice_and_begins_nothing_then() -> None:
    runner = Runner()
    runner.start()
    runner.stop()
    runner.stop()
    with pytest.raises(ClosedError, match="not open"):
        runner.run(lambda: for_ever(threading.Event()))


def test_threads_that_ask_while_it_is_stopped_all_end() -> None:
    for _ in range(20):
        runner = Runner()
        runner.start()
        threads = [threading.Thread(target=asks_until_closed, args=(runner,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        runner.stop()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def asks_until_closed(runner: Runner) -> None:
    try:
        while True:
            runner.run(lambda: asyncio.sleep(0))
    except (ClosedError, UnknownOutcomeError):
        return
