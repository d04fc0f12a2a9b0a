"""Trains a tiny model of each of mlx-lm's architectures in every way there is."""
