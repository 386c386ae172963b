"""A device takes part in a fleet: its SuperNode is started, watched, started again, and ended."""
