"""Records that do not fit in one prompt: chunks, what is retrieved of them, and what is asked about them."""
