"""How much of each layer stays: what units cost, what it is expected to do, and pruning to a budget in steps."""
