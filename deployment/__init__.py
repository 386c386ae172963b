"""Between machines: a fleet's keys and certificates, and who belongs to it."""
