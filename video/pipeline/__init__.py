"""The six stages, and the runner that claims one, works outside any transaction, and writes exactly one move.

Owns no table: a stage returns what it decided (`engine.outcomes`), the runner writes it through `video.engine`.
"""
