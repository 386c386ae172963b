"""The whole thing on one machine, as its users would run it: `python -m benchmarks.edge` (`make edge`)."""
