"""Texts and tables, from arguments, files and stdin."""
