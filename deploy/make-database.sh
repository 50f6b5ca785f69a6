#!/bin/sh
# Run once by the image of PostgreSQL, in a new database: a role of our own that is no superuser, and its database.
set -eu
psql --set ON_ERROR_STOP=1 --set password="$POSTGRES_PASSWORD" --username postgres <<'SQL'
CREATE ROLE reelworks LOGIN PASSWORD :'password';
CREATE DATABASE reelworks OWNER reelworks;
SQL
