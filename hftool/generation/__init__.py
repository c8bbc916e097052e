"""Generate text: next tokens, sampling, beam search, speculative decoding, batches."""
