"""Searches over options: RecBole's parameter files, its HyperTuning, and Ray Tune."""
