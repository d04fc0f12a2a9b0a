"""Do the recommended settings learn as much as the best of a grid? Five small data sets."""
