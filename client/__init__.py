"""The device's end: private data, private state, and the guard on what leaves."""
