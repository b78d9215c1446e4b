"""Files that are whole or not there, and the state of a run in them."""
