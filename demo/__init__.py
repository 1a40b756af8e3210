"""Merganser's main job, shown: three nodes, real clients, a partition, a kill -9, and a verdict."""
