"""What the four studies share: building boxes, running them, and tables beside the literature."""
