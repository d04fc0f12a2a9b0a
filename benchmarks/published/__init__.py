"""Peaks that people published, and the shapes of the models they are of."""
