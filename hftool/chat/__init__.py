"""A conversation: its messages, settings, slash commands and saved files."""
