"""Images: found, verified, augmented and handed out in batches."""
