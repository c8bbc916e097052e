"""One file a command: its signature, its help, and some ten lines."""
