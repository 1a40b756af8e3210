"""``python -m merganser.cli``: the same as ``merganser``."""

from merganser.cli.main import main

main()
