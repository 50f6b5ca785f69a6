"""The process: sockets, HTTP, and what is served beside the dialects."""
