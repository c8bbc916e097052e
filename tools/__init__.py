"""Programs that generate reference, formats, pictures and shown output for docs."""
