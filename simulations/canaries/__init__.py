"""Canaries: images that only one device holds, and the search for them in everything that others can see."""
