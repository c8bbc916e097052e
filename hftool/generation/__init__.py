"""Text from a language model: next tokens, sampling, beams, drafts, batches."""
