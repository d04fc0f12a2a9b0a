"""Requests and results of ephemeral workers: one dataclass for each message."""
