"""Pika as the simulator speaks it."""
