"""The role `evaluate`: questions answered by base and adapter, scored, and a verdict on the two."""
