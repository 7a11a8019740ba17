"""What `benchmarks.peers` compares: each a program of its own that imports nothing but what it needs."""
