"""One verb, one file; `safetrain.cli` names them and imports each only when it is called."""
