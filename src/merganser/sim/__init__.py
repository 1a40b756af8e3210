"""A whole cluster in one process on virtual time, driven by a seed."""
