"""`fedsieve serve`: the SuperLink, its reverse proxy and status page, registration of devices, rounds on a schedule."""
