"""The role `prepare`: makes training, validation and question files from people's own files."""
