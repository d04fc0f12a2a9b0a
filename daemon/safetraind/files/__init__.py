"""Files that must survive: durable writes, the event file, manifests, a run's state."""
