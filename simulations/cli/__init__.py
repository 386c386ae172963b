"""The commands that simulate: a fleet, a comparison, one device. Heavy packages are imported inside them."""
