"""The role `serve`, and how any worker that holds a model answers questions."""
