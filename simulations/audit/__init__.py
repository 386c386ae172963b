"""What left the devices: every byte of every recorded message, decoded and explained."""
