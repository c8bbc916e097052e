"""HTML pages that need no other files: each a template and the module that fills it."""
