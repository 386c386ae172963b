"""Sums of clients' statistics of which the server sees the total and nothing else; see docs/secure_aggregation.md."""
