"""The commands of `manage.py`, and the base that they share. They call what the packages below do, never a view."""
