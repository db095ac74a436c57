"""Reports read what there is and write tables and pages; they never train."""
