"""Pages and files outside the API and the admin: signed links, health, the front page, the demo's login, outages.

Writes no table.
"""
