"""Bytes at rest: engines, key order, checksummed values."""
