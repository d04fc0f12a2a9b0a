"""The role `probe`: tries device and model, and rehearses and measures real training steps."""
