"""The views of each command's records: their columns, and the lines of the text format."""
