"""A job's life: the pure machine that decides, its words, and what the jobs leave on disk."""
