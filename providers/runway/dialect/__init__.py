"""Runway as the simulator speaks it."""
