"""Merganser's main job, shown: three nodes, real clients, a kill -9, and a verdict."""
