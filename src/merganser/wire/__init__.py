"""Front doors. One package per protocol; they never import one another."""
