"""The HTTP API under /api: views, what they take and answer, tokens, origins, and the one shape of an error.

Writes no table: a view checks its request and calls `video.actions`, or reads figures.
"""
