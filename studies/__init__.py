"""The lecture's claims as experiments: arms and seeds of ordinary training runs, compared: `python -m studies`."""
