"""``quarry review``: a page on loopback to go through what waits for a person."""
