"""What was booked of a feed, checked against what the feed states of itself."""
