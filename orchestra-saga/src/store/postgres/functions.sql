-- Writes a group of appends and returns a row for each that is refused. Both halves come sorted, starts by key and
-- the others by saga, and locks are taken in one order (partitions, keys, sagas), so groups do not deadlock.
CREATE FUNCTION {schema}.append_1(
    a_space integer, a_partitions integer[], a_epochs bigint[],
    s_place integer[], s_partition integer[], s_epoch bigint[], s_saga uuid[], s_version bigint[], s_at bigint[],
    s_status smallint[], s_ended bigint[], s_wake bigint[], s_definition text[], s_key text[], s_body text[],
    c_place integer[], c_partition integer[], c_epoch bigint[], c_saga uuid[], c_expected bigint[], c_version bigint[],
    c_at bigint[], c_status smallint[], c_ended bigint[], c_wake bigint[], c_body text[]
) RETURNS TABLE (place integer, verdict smallint, number bigint, other uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    tx bigint;
    born uuid[];
    written integer[];
BEGIN
    -- Whoever takes a partition takes this lock alone: an epoch read after it stays until this commits. An advisory
    -- lock and not one of the row, since those who come later queue behind a claim that waits.
    PERFORM pg_advisory_xact_lock_shared(a_space, p) FROM unnest(a_partitions) AS p;
    RETURN QUERY
        SELECT c.n::integer - 1, 1::smallint, coalesce(held.epoch, 0), NULL::uuid
        FROM unnest(a_partitions, a_epochs) WITH ORDINALITY AS c (p, e, n)
        LEFT JOIN {schema}.partition held ON held.id = c.p
        WHERE held.epoch IS DISTINCT FROM c.e;
    IF FOUND THEN
        RETURN;
    END IF;
    SELECT base + pg_current_xact_id()::text::bigint INTO tx FROM {schema}.layout;

    IF cardinality(s_saga) > 0 THEN
        WITH fresh AS (
            INSERT INTO {schema}.saga (id, version, updated, wake, ended, partition, status, definition, start_key)
            SELECT s.saga, s.version, s.at, s.wake, s.ended, s.partition, s.status, s.definition, s.key
            FROM unnest(s_saga, s_version, s_at, s_wake, s_ended, s_partition, s_status, s_definition, s_key)
                AS s (saga, version, at, wake, ended, partition, status, definition, key)
            WHERE s.definition IS NOT NULL
            ON CONFLICT DO NOTHING
            RETURNING id
        )
        SELECT coalesce(array_agg(id), '{}') INTO born FROM fresh;
        INSERT INTO {schema}.frame (saga, version, tx, epoch, at, place, body)
        SELECT s.saga, s.version, tx, s.epoch, s.at, s.place, s.body
        FROM unnest(s_saga, s_version, s_epoch, s_at, s_place, s_body) AS s (saga, version, epoch, at, place, body)
        WHERE cardinality(born) = cardinality(s_saga) OR s.saga = ANY (born);
        IF cardinality(born) < cardinality(s_saga) THEN
            RETURN QUERY
                SELECT s.place,
                    CASE WHEN own.partition <> s.partition THEN 3 WHEN own.id IS NOT NULL THEN 2
                        WHEN named.id IS NOT NULL THEN 4 WHEN s.definition IS NULL THEN 6 ELSE 5 END::smallint,
                    CASE WHEN own.partition <> s.partition THEN own.partition ELSE coalesce(own.version, 0) END::bigint,
                    named.id
                FROM unnest(s_place, s_partition, s_saga, s_definition, s_key)
                    AS s (place, partition, saga, definition, key)
                LEFT JOIN {schema}.saga own ON own.id = s.saga
                LEFT JOIN {schema}.saga named ON named.start_key = s.key
                WHERE s.saga <> ALL (born);
        END IF;
    END IF;

    IF cardinality(c_saga) > 0 THEN
        WITH moved AS (
            -- Whoever waited here for another group sees the row as that one left it.
            UPDATE {schema}.saga s
            SET version = c.version, updated = c.at, wake = c.wake, ended = c.ended, status = c.status
            FROM unnest(c_saga, c_expected, c_partition, c_version, c_at, c_wake, c_ended, c_status, c_epoch, c_place, c_body)
                AS c (saga, expected, partition, version, at, wake, ended, status, epoch, place, body)
            WHERE s.id = c.saga AND s.version = c.expected AND s.partition = c.partition
            RETURNING c.saga, c.version, c.epoch, c.at, c.place, c.body
        ), framed AS (
            INSERT INTO {schema}.frame (saga, version, tx, epoch, at, place, body)
            SELECT m.saga, m.version, tx, m.epoch, m.at, m.place, m.body FROM moved m
            RETURNING place
        )
        SELECT coalesce(array_agg(f.place), '{}') INTO written FROM framed f;
        IF cardinality(written) < cardinality(c_saga) THEN
            RETURN QUERY
                SELECT c.place,
                    CASE WHEN own.partition <> c.partition THEN 3 ELSE 2 END::smallint,
                    CASE WHEN own.partition <> c.partition THEN own.partition ELSE coalesce(own.version, 0) END::bigint,
                    NULL::uuid
                FROM unnest(c_place, c_partition, c_saga) AS c (place, partition, saga)
                LEFT JOIN {schema}.saga own ON own.id = c.saga
                WHERE c.place <> ALL (written);
        END IF;
    END IF;
END $$;

-- Takes a partition and returns the epoch; with a term only one that is free, none otherwise.
CREATE FUNCTION {schema}.take_1(a_space integer, a_partition integer, a_owner text, a_term double precision)
RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    taken bigint;
BEGIN
    -- Those who only ask do not hold up the owner.
    IF a_term IS NOT NULL AND EXISTS (
        SELECT FROM {schema}.partition WHERE id = a_partition AND until > clock_timestamp()
    ) THEN
        RETURN NULL;
    END IF;
    -- After every append that runs under the epoch before.
    PERFORM pg_advisory_xact_lock(a_space, a_partition);
    INSERT INTO {schema}.partition AS held (id, epoch, owner, until)
    VALUES (a_partition, 1, a_owner, coalesce(clock_timestamp() + make_interval(secs => a_term), 'infinity'))
    ON CONFLICT (id) DO UPDATE SET epoch = held.epoch + 1, owner = excluded.owner, until = excluded.until
        WHERE a_term IS NULL OR held.until <= clock_timestamp()
    RETURNING held.epoch INTO taken;
    RETURN taken;
END $$;

-- Forgets sagas that ended before a moment, and returns how many; under another epoch -1 and what that is below it.
CREATE FUNCTION {schema}.purge_1(
    a_space integer, a_partition integer, a_epoch bigint, a_before bigint, a_limit bigint
) RETURNS bigint LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    held bigint;
    gone uuid[];
BEGIN
    PERFORM pg_advisory_xact_lock_shared(a_space, a_partition);
    SELECT coalesce(max(epoch), 0) INTO held FROM {schema}.partition WHERE id = a_partition;
    IF held <> a_epoch THEN
        RETURN -1 - held;
    END IF;
    SELECT coalesce(array_agg(s.id), '{}') INTO gone FROM (
        SELECT id FROM {schema}.saga
        WHERE partition = a_partition AND ended < a_before
        ORDER BY ended LIMIT a_limit
        FOR UPDATE SKIP LOCKED
    ) s;
    DELETE FROM {schema}.frame f USING unnest(gone) AS g WHERE f.saga = g;
    DELETE FROM {schema}.snapshot p USING unnest(gone) AS g WHERE p.saga = g;
    DELETE FROM {schema}.saga s USING unnest(gone) AS g WHERE s.id = g;
    RETURN cardinality(gone);
END $$;
