"""Whatever goes wrong from outside, subject by subject; ``python -m tests.faults`` runs all of it."""
