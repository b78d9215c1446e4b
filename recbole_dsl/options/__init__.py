"""What a run may be told, checked against RecBole's options and ours before anything is written."""
