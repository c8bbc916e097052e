"""Find, download, convert and load models."""
