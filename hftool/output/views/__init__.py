"""How each command's records are shown: columns, and lines of the text format."""
