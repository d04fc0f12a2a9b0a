"""Will it crash, and which settings should I use? Facts, checks, and a planner that measures.

`course.Course` is a whole preflight; `quick.quick` the first look of a submit, before any worker.
"""
