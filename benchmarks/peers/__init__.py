"""Other systems, each run in its own environment, and forecart by the same protocol (`benchmarks.speed`)."""
