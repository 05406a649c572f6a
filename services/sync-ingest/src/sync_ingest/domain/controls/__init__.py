"""What a feed states of itself, compared with what was read of it."""
