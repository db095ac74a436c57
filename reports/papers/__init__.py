"""What the papers print, and which of their rows belong beside a run."""
