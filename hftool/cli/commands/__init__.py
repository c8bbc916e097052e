"""The commands, one module each: a signature, its help and a short body."""
