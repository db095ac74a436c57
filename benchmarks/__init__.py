"""Speed measurements: code and the figures that it measured."""
