"""The UDP half of a link: datagrams to a node's advertised address are relayed to the node.

A datagram's sender is known by where it came from: a node sends from its peer port. Each sender is given
a socket of its own towards the node, as by a NAT, so that an answer to where the datagram came from finds
its way back through the same conditions.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket

from merganser.net.sockets import split_address
from merganser.testing.conditions import delay_of
from merganser.testing.streams import Directory

DATAGRAM_BYTES_MAX = 65_535
SENDERS_MAX = 64
"""Sockets towards one node; the oldest gives way."""

Address = tuple[str, int]


class DatagramLink:
    """Relays the datagrams of one link, both ways."""

    def __init__(self, directory: Directory, number: int, front: socket.socket, rng: random.Random) -> None:
        """Relay to node ``number`` what comes to ``front``, a bound UDP socket that now belongs to the link."""
        self._loop = asyncio.get_running_loop()
        self._directory = directory
        self._number = number
        self._front = front
        self._rng = rng
        self._behind: dict[Address, socket.socket] = {}
        front.setblocking(False)
        self._loop.add_reader(front, self._from_others)

    def close(self) -> None:
        """Let go of every socket."""
        for sender in list(self._behind):
            self._forget(sender)
        self._loop.remove_reader(self._front)
        self._front.close()

    def _from_others(self) -> None:
        with contextlib.suppress(OSError):  # an earlier datagram was refused; it is lost, as datagrams may be
            data, sender = self._front.recvfrom(DATAGRAM_BYTES_MAX)
            behind = self._behind.get(sender) or self._new_sender(sender)
            if behind is not None:
                self._pass_on(data, self._directory.number_at(sender), self._number, behind, None)

    def _from_node(self, sender: Address, behind: socket.socket) -> None:
        with contextlib.suppress(OSError):
            data = behind.recv(DATAGRAM_BYTES_MAX)
            self._pass_on(data, self._number, self._directory.number_at(sender), self._front, sender)

    def _pass_on(
        self, data: bytes, sender: int | None, receiver: int | None, way: socket.socket, to: Address | None
    ) -> None:
        conditions = self._directory.conditions(sender, receiver)
        if conditions.cut is not None or self._rng.random() < conditions.loss:
            return
        delay_s = delay_of(conditions, self._rng)
        if delay_s:
            self._loop.call_later(delay_s, _send, way, data, to)
        else:
            _send(way, data, to)

    def _new_sender(self, sender: Address) -> socket.socket | None:
        target = self._directory.target(self._number)
        if target is None:
            return None
        if len(self._behind) >= SENDERS_MAX:
            self._forget(next(iter(self._behind)))
        behind = socket.socket(self._front.family, socket.SOCK_DGRAM)
        behind.setblocking(False)
        behind.connect(split_address(target))
        self._loop.add_reader(behind, self._from_node, sender, behind)
        self._behind[sender] = behind
        return behind

    def _forget(self, sender: Address) -> None:
        behind = self._behind.pop(sender)
        self._loop.remove_reader(behind)
        behind.close()


def _send(way: socket.socket, data: bytes, to: Address | None) -> None:
    with contextlib.suppress(OSError):  # closed meanwhile, full, or nobody there: lost
        if to is None:
            way.send(data)
        else:
            way.sendto(data, to)
