"""What a job can name as its model, and what the model's config.json says."""
