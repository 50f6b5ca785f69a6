"""Measurements of Reelworks, each beside something measured in the same run. `python -m bench --help`."""
