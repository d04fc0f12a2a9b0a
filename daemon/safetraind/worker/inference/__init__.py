"""The role `serve`, and answering questions in any worker that has a model loaded."""
