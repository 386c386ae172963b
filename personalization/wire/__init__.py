"""What a server and its clients tell each other: plans, the vector of statistics, why something failed."""
