"""Options that many commands take."""

from __future__ import annotations

from typing import Annotated

import typer

AdminOption = Annotated[
    str, typer.Option("--admin", help="HOST:PORT of any node's admin port.", envvar="MERGANSER_ADMIN")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ADMIN_DEFAULT = "127.0.0.1:7800"
