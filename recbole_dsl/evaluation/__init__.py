"""Evaluation on RecBole's loaders: in blocks, in batches of bounded size, and divided among processes."""
