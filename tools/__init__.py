"""Programs that make the reference, the formats, the pictures and the shown output of the docs."""
