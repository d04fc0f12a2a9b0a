"""The scheduler, pure: state machine, out-of-memory fallback, queue estimate."""
