"""Prompts: chat templates, messages, and the token ids that a model receives."""
