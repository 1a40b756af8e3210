"""Frozen values and errors that every layer shares."""
