"""Models on the disk and on the wire: dense ones as transformers saves them, personal ones, and pieces of both."""
