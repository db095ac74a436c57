"""Where runs are read from: run directories, offline W&B files, and W&B's public API."""
