"""Prompts: chat templates, messages and the token ids they become."""
