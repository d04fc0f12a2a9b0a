"""The role `prepare`: from the files people have to training, validation and question files."""
