"""The vocabulary that client and daemon share: settings, jobs, events, sentences, paths."""
