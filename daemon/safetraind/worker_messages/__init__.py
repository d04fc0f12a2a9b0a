"""What ephemeral workers are asked and what they answer: one dataclass for each message."""
