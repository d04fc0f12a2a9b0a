"""Small inputs of the kinds on which trainers go wrong in silence, each with what is right."""
