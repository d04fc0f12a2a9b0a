"""The role `train`: the loop, its step, its batches, its checkpoints."""
