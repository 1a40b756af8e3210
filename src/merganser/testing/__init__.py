"""Tools that test clusters of real processes."""
