"""What a correct trainer does, as properties that any trainer can be tried on."""
