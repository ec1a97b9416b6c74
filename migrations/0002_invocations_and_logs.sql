-- What ran and what it printed: one partition a day, so that the old goes by dropping a table.

create table invocations (
  id text not null,
  tenant_id text not null,
  function_id text not null,
  version_id text not null,
  accepted_at timestamptz not null,
  finished_at timestamptz not null,
  status text not null,
  http_status smallint,
  error_code text,
  path text,
  start text,
  placement_reasons text[] not null,
  phases jsonb not null,
  duration_ms double precision not null,
  billed_ms double precision not null,
  memory_mb integer not null,
  cpu_ms double precision,
  memory_peak_bytes bigint,
  request_bytes bigint not null,
  response_bytes bigint not null,
  sandbox_id text,
  node_id text not null,
  primary key (id, accepted_at)
) partition by range (accepted_at);
create index invocations_function on invocations (function_id, accepted_at);
create table invocations_default partition of invocations default;

create sequence function_logs_seq;
create table function_logs (
  -- Order of lines with the same time.
  seq bigint not null default nextval('function_logs_seq'),
  tenant_id text not null,
  function_id text not null,
  invocation_id text,
  version integer not null,
  at timestamptz not null,
  stream text not null,
  text text not null
) partition by range (at);
create index function_logs_function on function_logs (function_id, at, seq);
create table function_logs_default partition of function_logs default;

-- Makes the partitions of today and `days_ahead` days after it. Rows that came before their partition stay in the default one.
create function ensure_partitions(days_ahead integer) returns void language plpgsql as $$
declare
  parent text;
  day date;
begin
  perform pg_advisory_xact_lock(hashtext('cloister partitions'));
  foreach parent in array array['invocations', 'function_logs'] loop
    for day in select generate_series(0, days_ahead) + (now() at time zone 'utc')::date loop
      continue when to_regclass(format('%I', parent || to_char(day, '_YYYYMMDD'))) is not null;
      begin
        execute format('create table %I partition of %I for values from (%L) to (%L)',
          parent || to_char(day, '_YYYYMMDD'), parent, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
      exception when check_violation then
        raise notice 'rows of % are in the default partition of %', day, parent;
      end;
    end loop;
  end loop;
end
$$;

-- Drops the partitions of days that ended more than `retention_days` days ago; gives their number.
create function drop_old_partitions(retention_days integer) returns integer language plpgsql as $$
declare
  found record;
  oldest date := (now() at time zone 'utc')::date - retention_days;
  dropped integer := 0;
begin
  perform pg_advisory_xact_lock(hashtext('cloister partitions'));
  for found in
    select child.relname::text as name from pg_inherits
    join pg_class child on child.oid = inhrelid
    join pg_class parent on parent.oid = inhparent
    where parent.oid in ('invocations'::regclass, 'function_logs'::regclass)
      and child.relname ~ '_[0-9]{8}$'
  loop
    if to_date(right(found.name, 8), 'YYYYMMDD') < oldest then
      execute format('drop table %I', found.name);
      dropped := dropped + 1;
    end if;
  end loop;
  delete from invocations_default where accepted_at < oldest;
  delete from function_logs_default where at < oldest;
  return dropped;
end
$$;
