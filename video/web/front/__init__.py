"""What stands between the net and Django: bodies, waiting clients, files and streams, none of which holds a thread.

docs/why/front.md says why it is made so.
"""
