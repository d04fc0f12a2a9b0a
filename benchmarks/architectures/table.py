"""The pages of architectures: what was tried, as tables, in both languages."""

from collections.abc import Mapping


def write_pages(found: Mapping[str, Mapping[str, str]]) -> None:
    """Writes both."""
