"""Records to lines: formats, tables and colours, files written whole."""
