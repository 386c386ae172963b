"""Comparisons: every method on the same fleets and seeds, cell by cell, cached, with intervals."""
