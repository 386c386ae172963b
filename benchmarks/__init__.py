"""Speed and size against limits and peers; each is one command: `python -m benchmarks.NAME`."""
