"""Weights and networks from other libraries, and for them."""
