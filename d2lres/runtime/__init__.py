"""MXNet 1.9.1 on today's Python, NumPy and machines."""
