"""What a client gets to see of a key, and how several values become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from merganser.client.arguments import wrong_type
from merganser.client.errors import SiblingsError
from merganser.model.client_messages import ValueIs, ValuesAre

Merge = Callable[[list[bytes]], bytes]
"""Returns what several values of a key come to; the oldest first, two at least. It should not matter in which order."""
Change = Callable[[bytes | None], bytes | bytearray | str | None]
"""Returns what a key is to hold in the place of what it holds; None: nothing."""


class Values(msgspec.Struct, frozen=True):
    """What a key read as."""

    siblings: tuple[ValueIs, ...]
    """The oldest first; none: there is no such key. Each with when it was written, and by which node."""
    context: bytes
    """To be handed to the put, or delete, that replaces all of them."""
    merge: Merge | None = None

    @property
    def all(self) -> list[bytes]:
        """The values alone."""
        return [sibling.value for sibling in self.siblings]

    @property
    def value(self) -> bytes | None:
        """The value, None if there is none; of several, what the merge function makes of them.

        Raises:
            SiblingsError: there are several, and no merge function.
        """
        if len(self.siblings) <= 1:
            return self.siblings[0].value if self.siblings else None
        if self.merge is None:
            raise SiblingsError(
                f"the key has {len(self.siblings)} values: look at all of them (.all), put what they come to with the "
                "context, or give the table a merge function"
            )
        return merged(self.merge, self.all)


def values_of(told: ValuesAre, merge: Merge | None) -> Values:
    """Return what a node told."""
    return Values(told.values, told.context, merge)


def merged(merge: Merge, several: Sequence[bytes]) -> bytes:
    """Return what ``merge`` makes of ``several`` values.

    Raises:
        TypeError: that is no value.
    """
    value = merge(list(several))
    if not isinstance(value, bytes | bytearray):
        raise TypeError(f"a merge function returns bytes, and this one returned {type(value).__name__}")
    return bytes(value)


def as_bytes(given: object, what: str) -> bytes:
    """Return a key or a value that a caller gave; text is UTF-8.

    Raises:
        WrongTypeError: it is neither text nor bytes, or text that cannot be encoded.
    """
    if type(given) is bytes:
        return given
    if isinstance(given, str):
        try:
            return given.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, as JSON and file names can hold
            raise wrong_type(what, "bytes, or text that has an UTF-8", given) from None
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    raise wrong_type(what, "bytes or text", given)
