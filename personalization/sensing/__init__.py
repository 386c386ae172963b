"""What a device finds out about its layers: probes and what they cost, local errors, what its fleet expects."""
