"""Adam for sparse weights: fused, and lazy for rows that a batch does not read."""
