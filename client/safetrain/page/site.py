"""What the routes of every station share."""

from __future__ import annotations

from dataclasses import dataclass

from safetrain.connection import Daemon
from safetrain.page.access import Keys
from safetrain.page.job_feed import JobFeed
from safetrain.page.render import Renderer


@dataclass(frozen=True)
class Site:
    """One dashboard."""

    feed: JobFeed
    keys: Keys
    render: Renderer

    @property
    def daemon(self) -> Daemon:
        """The connection to the daemon."""
        return self.feed.daemon
