"""How a fleet's statistics vectors become one."""
