"""The role `probe`: tries device and model, and measures real training steps."""
