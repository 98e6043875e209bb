"""One traced graph, rewritten for speed, on the same parameters."""
