"""A model that is in memory at work: on images, going on from a prompt, scoring a text."""
