"""The way to another machine's daemon, by the ssh of the user: for clients and for a daemon."""
