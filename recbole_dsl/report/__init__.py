"""A page about a run, or several side by side, that opens without a network."""
