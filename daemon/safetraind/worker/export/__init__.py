"""The role `export`: a model of its own from base and adapter, and whether it answers alike."""
