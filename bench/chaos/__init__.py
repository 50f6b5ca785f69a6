"""The whole system under random kills, and a check from the outside. `python -m bench.chaos --help`.

What it found, and how to repeat it: docs/reliability.md.
"""
