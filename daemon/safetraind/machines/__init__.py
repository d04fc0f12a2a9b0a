"""One training over several machines: what its leader asks of the others, and what these lend."""
