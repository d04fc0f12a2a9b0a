"""Recurrent layers for training: computed in chunks, and recomputed in the backward pass."""
