"""What every part needs of the machine: files, memory, threads, and packages that may be missing."""
