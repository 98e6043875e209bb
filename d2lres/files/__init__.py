"""Files of others, and ours written whole."""
