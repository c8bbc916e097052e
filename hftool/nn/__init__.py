"""Models and caches in plain torch, and what is known about model families."""
