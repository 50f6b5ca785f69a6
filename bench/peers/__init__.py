"""Reelworks beside other people's software that does a part of the same."""
