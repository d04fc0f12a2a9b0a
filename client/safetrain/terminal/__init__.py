"""Output on a terminal: the live view, diagnosis, export and self-test as text."""
