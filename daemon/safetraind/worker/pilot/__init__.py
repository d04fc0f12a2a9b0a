"""Short trainings on a job's own data, at several learning rates."""
