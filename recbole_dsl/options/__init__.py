"""The options of a run, RecBole's and ours, checked before anything is written."""
