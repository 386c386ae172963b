"""What an uplink gives away: attacks on what clients send, trained on shadow fleets."""
