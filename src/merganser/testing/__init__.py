"""Clusters for tests: start, kill, restart, stop."""
