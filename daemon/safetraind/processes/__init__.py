"""Processes below the daemon: supervisor, keeper, lease, ephemeral workers, inference server."""
