"""Simulated fleets: data, partitions, engines and reports."""
