"""The scheduler, pure: the state machine of all jobs, the out-of-memory fallback, the queue estimate."""
