"""What must survive: jobs in SQLite, event files, output folders, durable writes."""
