"""What holds mlx: one process, one role, executed and never imported by the service."""
