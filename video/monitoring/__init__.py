"""Figures for operators, by stage, worker, provider and user, and the problems that need a person.

Reads all tables and writes none but the figures of hours that are over. The
API, the admin and `manage.py queue_status` show the same figures from here.
"""
