"""The role `convert`: a GGUF file as a folder that mlx-lm loads."""
