"""Labels for texts: the run, what scores the labels, and summaries of many texts."""
