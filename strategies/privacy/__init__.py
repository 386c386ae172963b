"""Differential privacy at client level: clipping, noise on the integer grid, what it costs, and who keeps count."""
