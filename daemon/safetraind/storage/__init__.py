"""Durable data: jobs in SQLite, event files, output folders, atomic writes."""
