"""The file for an issue report: what happened, without who it happened to or what was trained."""
