"""Will it crash, and which settings fit? The preflight: facts, checks, a planner that measures.

`preflight_run.PreflightRun` is a complete preflight; `submit_checks` has the checks of a submit
that need no worker.
"""
