"""What several commands share: options, choosing the job, following it, writing files."""
