"""The report: one HTML page, and PNG plots."""
