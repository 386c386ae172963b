"""Fuzzing, guided by coverage, of everything that is decoded from the wire."""
