"""Every accepted mail from the queue to its final state."""
