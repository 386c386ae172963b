"""What a fleet has to live with: lost replies, slow devices, latecomers, changing data and attackers."""
