"""Kling as the simulator speaks it."""
