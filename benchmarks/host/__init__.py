"""A link with a delay, for the benchmark of another machine."""
