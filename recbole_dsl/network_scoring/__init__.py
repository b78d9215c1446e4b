"""Models whose score is no product of vectors, from their weights and what they read of their data alone."""
