"""Processes below the daemon: keeper, locks, launching, warm guests."""
