"""Processes below the daemon: supervisor, keeper, locks, lease, ephemeral workers, inference
server.
"""
