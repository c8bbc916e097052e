"""Find, fetch, prepare, place and load a model."""
