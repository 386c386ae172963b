"""What one device does: sense, recover, allocate, prune, cut and save a personal model. No Flower, no network."""
