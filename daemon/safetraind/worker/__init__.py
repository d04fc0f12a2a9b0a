"""All code that loads mlx: one process, one role, executed and never imported by the service."""
