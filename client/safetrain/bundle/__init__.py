"""The archive for an issue report, without names, secrets and training data."""
