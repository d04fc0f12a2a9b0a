"""Draws views as one HTML page and as PNG plots."""
