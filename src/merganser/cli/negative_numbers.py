"""Commands that take ``-5`` for a number, not for an option that nobody has: `merganser update T k max raise -5`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from typing import Any

from typer.core import TyperCommand

_NUMBER = re.compile(r"-\d[\d.]*")


class NumbersCommand(TyperCommand):
    """A command whose arguments may be numbers below zero; it has no options of digits."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what was typed, as any command does."""
        valued = {
            name
            for param in self.params
            if param.param_type_name == "option" and not _is_flag(param)
            for name in param.opts
        }
        return super().parse_args(ctx, with_numbers_last(args, valued))


def with_numbers_last(args: list[str], valued: Collection[str]) -> list[str]:
    """Return ``args`` with all that are no options behind ``--``, if there is a number below zero among those.

    Args:
        args: as they were typed.
        valued: names of the options that the next argument is the value of.
    """
    options: list[str] = []
    others: list[str] = []
    left = iter(args)
    for arg in left:
        if arg == "--":
            others += left
        elif arg in valued:
            options += [arg, *itertools.islice(left, 1)]
        elif arg.startswith("-") and arg != "-" and not _NUMBER.fullmatch(arg):
            options.append(arg)
        else:
            others.append(arg)
    return [*options, "--", *others] if any(map(_NUMBER.fullmatch, others)) else args


def _is_flag(param: Any) -> bool:
    return bool(getattr(param, "is_flag", False))
