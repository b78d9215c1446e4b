"""Evaluation on RecBole's loaders: in batches of bounded size, and divided among processes."""
