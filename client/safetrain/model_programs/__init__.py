"""Programs of this machine that run models, and how an exported model gets into each."""
