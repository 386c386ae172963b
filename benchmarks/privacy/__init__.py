"""What differential privacy costs in accuracy and evaluations."""
