"""The merganser command."""
