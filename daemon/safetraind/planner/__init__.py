"""The planner: which settings fit this machine, model and data, decided purely."""
