"""Another machine's daemon, reached by the user's own ssh: hosts, tunnel, files there and back."""
