"""What a job can name as its model: folders, hub repositories, packaged models; and what config.json says."""
