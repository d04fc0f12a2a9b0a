"""Carries out what the scheduler decides: jobs, files, locks and workers meet here."""
