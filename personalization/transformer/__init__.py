"""A transformer as a device sees it: its layers and their units, one pass through it, and what its head reads."""
