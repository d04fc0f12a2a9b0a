"""Recurrent layers for training: computed in chunks, and again in the backward pass."""
