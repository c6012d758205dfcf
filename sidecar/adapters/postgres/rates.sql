-- name: know_paths
-- The rows that are locked to give turns.
INSERT INTO rate_limits (namespace, service, path)
SELECT %(namespace)s, %(service)s, path FROM json_array_elements_text(%(paths)s::json) AS path
ORDER BY path
ON CONFLICT (namespace, service, path) DO NOTHING

-- name: ask
-- Turns for all who ask: the rule of `sidecar.saga.pacing` without its loops, which another test holds
-- against this. Moments are whole microseconds since 1970. `theoretical` is the meter before each
-- call: that of call i is i intervals after the first one's, or later by what a later arrival among
-- those before it has added. The clock is read once the meters are locked: whoever had to wait for
-- them would else be given moments that have passed. If the row of any path is missing nobody is
-- given anything.
WITH asked AS MATERIALIZED (
    SELECT v.n, v.path, v.every, v.tolerance, v.patience, v.workflow_id, v.step, v.idx, v.action,
        v.tries
    FROM json_to_recordset(%(asks)s::json) AS v (
        n integer, path text, every bigint, tolerance bigint, patience bigint, workflow_id uuid,
        step text, idx integer, action text, tries integer)
), meters AS MATERIALIZED (
    SELECT m.path, m.promised, m.called, m.late, m.every FROM rate_limits m
    WHERE m.namespace = %(namespace)s AND m.service = %(service)s
      AND m.path IN (SELECT path FROM asked)
    ORDER BY m.path FOR UPDATE
), clock AS MATERIALIZED (
    SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now
    FROM (SELECT count(*) AS known FROM meters) AS locked
    WHERE locked.known = (SELECT count(DISTINCT path) FROM asked)
), told AS MATERIALIZED (
    SELECT m.path, c.now, m.every AS earlier, l.every, l.tolerance,
        CASE WHEN l.every < m.every THEN 0
            ELSE (extract(epoch FROM m.promised) * 1000000)::bigint END AS promised,
        CASE WHEN l.every < m.every THEN 0
            ELSE (extract(epoch FROM m.late) * 1000000)::bigint END AS late,
        (extract(epoch FROM m.called) * 1000000)::bigint AS called
    FROM meters m CROSS JOIN clock c
    JOIN (SELECT DISTINCT path, every, tolerance FROM asked) l USING (path)
), met AS MATERIALIZED (
    SELECT t.path, t.now, t.late, t.promised AS line, GREATEST(t.now, t.promised) AS promised,
        GREATEST(t.now, t.promised - t.tolerance) AS behind,
        CASE WHEN t.earlier IN (0, t.every) OR t.called <= t.now THEN t.called
            ELSE t.now + ceil((t.called - t.now)::numeric * t.every / t.earlier)::bigint END AS called
    FROM told t
), recalled AS MATERIALIZED (
    SELECT a.*, m.now, m.called, m.late, m.promised, m.line, m.behind, p.moment IS NOT NULL AS kept_one,
        CASE WHEN p.path = a.path AND p.tries = a.tries AND p.namespace = %(namespace)s AND p.service = %(service)s
            THEN (extract(epoch FROM p.moment) * 1000000)::bigint END AS moment
    FROM asked a JOIN met m USING (path)
    LEFT JOIN rate_promises p ON p.workflow_id = a.workflow_id AND p.step = a.step
        AND p.idx = a.idx AND p.action = a.action
), remembered AS MATERIALIZED (
    SELECT r.n, r.path, r.every, r.tolerance, r.patience, r.workflow_id, r.step, r.idx, r.action,
        r.tries, r.now, r.called, r.late, r.promised, r.line, r.kept_one,
        CASE WHEN r.moment <= r.behind THEN r.moment END AS promise
    FROM recalled r
), lined_up AS MATERIALIZED (
    SELECT r.*, COALESCE(r.promise, GREATEST(r.now, r.promised - r.tolerance
            + r.every * (row_number() OVER (PARTITION BY r.path, r.promise IS NULL ORDER BY r.n) - 1)
        )) AS turn
    FROM remembered r
), counted AS MATERIALIZED (
    SELECT l.*, GREATEST(l.turn, l.now) AS arrival,
        row_number() OVER (PARTITION BY l.path ORDER BY l.turn, l.n) - 1 AS i
    FROM lined_up l
), metered AS MATERIALIZED (
    SELECT c.*, c.every * c.i + GREATEST(c.called, max(c.arrival - c.every * c.i) OVER (
            PARTITION BY c.path ORDER BY c.i ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        )) AS theoretical
    FROM counted c
), judged AS MATERIALIZED (
    SELECT m.*, GREATEST(m.arrival, m.theoretical - m.tolerance) AS moment,
        GREATEST(m.arrival, m.theoretical - m.tolerance) - m.now <= CASE WHEN m.promise IS NULL
            THEN LEAST(m.patience, %(new_patience)s::bigint) ELSE m.patience END AS granted
    FROM metered m
), put_off AS MATERIALIZED (
    SELECT j.path, j.n, GREATEST(j.moment, j.late + j.every
        * (row_number() OVER (PARTITION BY j.path ORDER BY j.i) - 1)) AS back
    FROM judged j WHERE NOT j.granted AND j.promise <= j.now
), answered AS MATERIALIZED (
    SELECT j.*, p.back, COALESCE(p.back, j.moment) - j.now AS wait
    FROM judged j LEFT JOIN put_off p USING (path, n)
), moved AS (
    UPDATE rate_limits m SET
        promised = 'epoch'::timestamptz + a.promised * interval '1 microsecond',
        called = 'epoch'::timestamptz + a.called * interval '1 microsecond',
        late = 'epoch'::timestamptz + a.late * interval '1 microsecond',
        every = a.every
    FROM (
        SELECT path,
            CASE WHEN count(*) FILTER (WHERE promise IS NULL) > 0 THEN max(promised)
                + max(every) * count(*) FILTER (WHERE promise IS NULL)
                ELSE max(line) END AS promised,
            COALESCE(max(back + every), max(late)) AS late,
            COALESCE(max(GREATEST(theoretical, arrival) + every) FILTER (WHERE granted),
                max(called)) AS called, max(every) AS every
        FROM answered GROUP BY path
    ) AS a
    WHERE m.namespace = %(namespace)s AND m.service = %(service)s AND m.path = a.path
), kept AS (
    INSERT INTO rate_promises (workflow_id, step, idx, action, namespace, service, path, moment,
        tries, granted, kept_until)
    SELECT workflow_id, step, idx, action, %(namespace)s, %(service)s, path,
        'epoch'::timestamptz + turn * interval '1 microsecond', tries, granted,
        'epoch'::timestamptz + (now + wait + CASE WHEN granted THEN %(kept_granted)s::bigint
            ELSE %(kept_for)s::bigint END) * interval '1 microsecond'
    FROM answered WHERE NOT granted OR promise IS NOT NULL
    ON CONFLICT (workflow_id, step, idx, action) DO UPDATE SET moment = EXCLUDED.moment,
        tries = EXCLUDED.tries, granted = EXCLUDED.granted, kept_until = EXCLUDED.kept_until,
        path = EXCLUDED.path, namespace = EXCLUDED.namespace, service = EXCLUDED.service
), used AS (
    DELETE FROM rate_promises p USING answered a
    WHERE a.granted AND a.promise IS NULL AND a.kept_one AND p.workflow_id = a.workflow_id
      AND p.step = a.step AND p.idx = a.idx AND p.action = a.action
), swept AS (
    DELETE FROM rate_promises WHERE (workflow_id, step, idx, action) IN (
        SELECT p.workflow_id, p.step, p.idx, p.action FROM rate_promises p
        WHERE p.namespace = %(namespace)s AND p.service = %(service)s
          AND p.kept_until < statement_timestamp()
          AND (p.workflow_id, p.step, p.idx, p.action)
              NOT IN (SELECT workflow_id, step, idx, action FROM asked)
        ORDER BY p.kept_until LIMIT 1000 FOR UPDATE OF p SKIP LOCKED)
)
SELECT n, wait, granted FROM answered ORDER BY n

-- name: promised_steps
-- Those that wait for a turn that they were promised.
SELECT step, idx FROM rate_promises WHERE workflow_id = %(id)s::uuid AND NOT granted
