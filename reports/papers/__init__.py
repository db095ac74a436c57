"""What the papers print, and the matching of runs to their rows."""
