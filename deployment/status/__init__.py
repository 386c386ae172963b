"""The status page: what the fleet does, for its operator's eyes; aggregates only, and nothing that can be changed."""
