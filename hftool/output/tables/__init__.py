"""The tables, bars and colours that a person reads on a terminal, made with rich."""
