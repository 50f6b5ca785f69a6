"""Pages and files outside the API and the admin: signed links, health, the front page, logins (the
demo's too), outages.

Writes no table but those of the logins.
"""
