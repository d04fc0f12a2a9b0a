"""The role `convert`: converts a GGUF file into a folder that mlx-lm loads."""
