-- PostgreSQL can't take the rights of a superuser from its first role, which is called reelworks here. So that one becomes
-- reelworks_admin, and reelworks a role that owns the database and all in it. (REASSIGN OWNED refuses the first role.)
-- No blank line behind a semicolon: what is before it would be a transaction of its own.
CREATE ROLE reelworks_split SUPERUSER;
SET SESSION AUTHORIZATION reelworks_split;
ALTER ROLE reelworks RENAME TO reelworks_admin;
SET SESSION AUTHORIZATION reelworks_admin;
DROP ROLE reelworks_split;
CREATE ROLE reelworks LOGIN;
ALTER DATABASE reelworks OWNER TO reelworks;
DO $$
DECLARE
    one text;
BEGIN
    FOR one IN
        WITH ours AS (
            SELECT oid FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        ), owned_by_a_column AS (
            SELECT objid FROM pg_depend WHERE classid = 'pg_class'::regclass AND deptype IN ('a', 'i')
        )
        SELECT format('SCHEMA %I', nspname) FROM pg_namespace JOIN ours USING (oid) WHERE nspname <> 'public'
        UNION ALL
        SELECT format('TABLE %s', c.oid::regclass) FROM pg_class c JOIN ours ON ours.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
            OR (c.relkind = 'S' AND c.oid NOT IN (SELECT objid FROM owned_by_a_column))
        UNION ALL
        SELECT format('ROUTINE %s', p.oid::regprocedure) FROM pg_proc p JOIN ours ON ours.oid = p.pronamespace
        UNION ALL
        SELECT format('TYPE %s', format_type(t.oid, NULL)) FROM pg_type t JOIN ours ON ours.oid = t.typnamespace
        WHERE t.typtype IN ('d', 'e')
    LOOP
        EXECUTE format('ALTER %s OWNER TO reelworks', one);
    END LOOP;
END
$$;
