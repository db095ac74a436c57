"""Training speed: what `python -m benchmarks` measures, and the results that were measured."""
