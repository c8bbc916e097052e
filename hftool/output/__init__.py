"""How records are written: formats, tables and colours, and files that appear when complete."""
