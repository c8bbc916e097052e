"""Labels for texts: what scores them, and what many scores add up to."""
