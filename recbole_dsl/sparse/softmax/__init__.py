"""Losses over all rows of a sparse table, from its values, columns and offsets: no scores of all rows are kept."""
