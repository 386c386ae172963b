"""What faults do to a fleet of real processes."""
