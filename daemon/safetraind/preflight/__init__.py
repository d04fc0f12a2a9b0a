"""Will it crash, and which settings should I use? Facts, checks, and a planner that measures.

`preflight_run.PreflightRun` is a complete preflight; `submit_checks` are those checks of a submit
that need no worker.
"""
