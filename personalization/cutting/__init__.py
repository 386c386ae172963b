"""Units are chosen, what reads them is refitted, and a layer is lowered: for one masked pass, or for good."""
