"""The composition root: the one place that wires the parts together."""
