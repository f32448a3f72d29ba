"""Orders in which channels are kept."""
