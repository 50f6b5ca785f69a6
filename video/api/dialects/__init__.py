"""The API in the words of clients that exist: OpenAI's videos at /v1/videos, OpenRouter's at /api/v1/videos.

Thin: each request becomes an order of ours, and each answer is a task's status in other words. See docs/clients.md.
"""
