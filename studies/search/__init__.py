"""Cells found by a controller, by evolution and at random: `python -m studies.search`."""
