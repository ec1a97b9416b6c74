-- Who used what. The hours are summed up by the very statement that writes the records, so the two cannot disagree.

alter table invocations
  -- Written by one that saw the call end but did not serve it. The record of the worker that did replaces it, should it come.
  add column lost boolean not null default false,
  -- The status of the record that this one replaced.
  add column replaced_status text;

create table usage_hours (
  -- Usage outlives its tenant and its functions, so it refers to neither.
  tenant_id text not null,
  -- Beginning of the UTC hour in which the invocations were accepted.
  hour timestamptz not null check (extract(epoch from hour) % 3600 = 0),
  function_id text not null,
  -- `none` of those that were never placed.
  path text not null,
  status text not null,
  invocations bigint not null,
  -- Whole numbers, because sums of fractions depend on their order: MiB times ms, µs, bytes.
  mib_ms bigint not null,
  cpu_us bigint not null,
  egress_bytes bigint not null,
  primary key (tenant_id, hour, function_id, path, status)
)
-- A row is written again with each batch of its hour: room beside it keeps the indexes out of that.
with (fillfactor = 50);
create index usage_hours_hour on usage_hours (hour);

insert into usage_hours
  select tenant_id, date_trunc('hour', accepted_at, 'UTC'), function_id, coalesce(path, 'none'), status, count(*),
    sum(memory_mb::bigint * round(billed_ms)::bigint), sum(coalesce(round(cpu_ms * 1000), 0)::bigint), sum(response_bytes)
  from invocations group by 1, 2, 3, 4, 5;

-- What a tenant stores, one row for each hour in which that changed.
create table usage_storage (
  tenant_id text not null,
  hour timestamptz not null check (extract(epoch from hour) % 3600 = 0),
  -- The most within the hour, and what there was at its end.
  peak_bytes bigint not null,
  end_bytes bigint not null,
  primary key (tenant_id, hour)
);

-- Notes how many bytes of bundles a tenant's live versions have; the same bundle counts once for a tenant.
create function note_storage(tenant text) returns void language plpgsql as $$
declare
  now_bytes bigint;
  last usage_storage%rowtype;
  this_hour timestamptz;
begin
  -- Whoever waited here sees, in the statements that follow, what the other has committed.
  perform pg_advisory_xact_lock(hashtext('cloister storage'), hashtext(tenant));
  select coalesce(sum(size_bytes), 0) into now_bytes from bundles where digest in (
    select bundle_digest from versions join functions on functions.id = function_id
    where functions.tenant_id = tenant and deleted_at is null);
  select * into last from usage_storage where tenant_id = tenant order by hour desc limit 1;
  if coalesce(last.end_bytes, 0) = now_bytes then
    return;
  end if;
  -- A clock that was set back must not put the new before the old.
  this_hour := greatest(date_trunc('hour', clock_timestamp(), 'UTC'), last.hour);
  insert into usage_storage values (tenant, this_hour, greatest(now_bytes, coalesce(last.end_bytes, 0)), now_bytes)
  on conflict (tenant_id, hour) do update set
    peak_bytes = greatest(usage_storage.peak_bytes, excluded.peak_bytes), end_bytes = excluded.end_bytes;
end
$$;

create function note_storage_of_row() returns trigger language plpgsql as $$
begin
  if tg_table_name = 'versions' then
    perform note_storage(tenant_id) from functions where id = new.function_id;
  else
    perform note_storage(old.tenant_id);
  end if;
  return null;
end
$$;
create trigger versions_storage after insert on versions
  for each row execute function note_storage_of_row();
create trigger functions_storage_changed after update of deleted_at on functions
  for each row when (old.deleted_at is distinct from new.deleted_at) execute function note_storage_of_row();
create trigger functions_storage_gone after delete on functions
  for each row when (old.deleted_at is null) execute function note_storage_of_row();

select note_storage(id) from tenants;

-- Records accepted before this moment were dropped with their day. One that comes again or late is not taken: whether it has been counted
-- can no longer be told.
create table record_horizon (
  one boolean primary key default true check (one),
  oldest timestamptz not null
);
insert into record_horizon (oldest) values ('-infinity');

create or replace function drop_old_partitions(retention_days integer) returns integer language plpgsql as $$
declare
  found record;
  oldest_day date := (now() at time zone 'utc')::date - retention_days;
  dropped integer := 0;
begin
  perform pg_advisory_xact_lock(hashtext('cloister partitions'));
  update record_horizon set oldest = greatest(oldest, oldest_day::timestamp at time zone 'utc');
  for found in
    select child.relname::text as name from pg_inherits
    join pg_class child on child.oid = inhrelid
    join pg_class parent on parent.oid = inhparent
    where parent.oid in ('invocations'::regclass, 'function_logs'::regclass)
      and child.relname ~ '_[0-9]{8}$'
  loop
    if to_date(right(found.name, 8), 'YYYYMMDD') < oldest_day then
      execute format('drop table %I', found.name);
      dropped := dropped + 1;
    end if;
  end loop;
  delete from invocations_default where accepted_at < oldest_day::timestamp at time zone 'utc';
  delete from function_logs_default where at < oldest_day::timestamp at time zone 'utc';
  return dropped;
end
$$;
