"""Lies that clients tell the fleet, to measure what strategies withstand."""
