"""View models: pure, no terminal and no HTML; what API, terminal, page and report share."""
