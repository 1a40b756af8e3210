"""The environment variables that are settings of nodes."""

from __future__ import annotations

PREFIX = "MERGANSER_"
"""MERGANSER_DYNAMODB_PORT is ``dynamodb_port``."""
