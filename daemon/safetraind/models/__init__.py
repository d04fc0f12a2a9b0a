"""Models that a job can name, and the contents of their config.json."""
