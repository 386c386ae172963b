"""The encrypted vault: a device's private state, readable with its key only, and every change to it noticed."""
