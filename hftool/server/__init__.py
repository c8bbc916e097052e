"""A process that keeps models in memory, and the commands that let it run them."""
