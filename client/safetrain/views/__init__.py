"""View models shared by API, terminal, page and report; no terminal and no HTML."""
