"""Will it crash, and which settings should I use? Facts, checks, and a planner that measures.

`course.Course` is a whole preflight; `quick.quick` the part that a submit needs at once.
"""
