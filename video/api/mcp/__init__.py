"""The Model Context Protocol at /mcp: assistants make videos as their users' programs do, by calls of the API.

Streamable HTTP without sessions and without streams: a JSON message in, a JSON message out, by a thread as for any
other call. The official SDK's server is not used: it brings an event loop, a second web framework and 57 MiB into each
web process. Its client is what the tests ask with, and its types are what they check the answers by.
"""
