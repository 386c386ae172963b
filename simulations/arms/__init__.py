"""Reference arms: what a fleet is compared with, on the same clients, budgets and seeds."""
