"""Recurrent layers for training: computed in chunks, and again on the way back."""
