"""Reading, checking and dividing RecBole's data."""
