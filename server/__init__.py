"""The server's end: generic layers and their versions, rounds, plans and the journal. It never sees a sample."""
