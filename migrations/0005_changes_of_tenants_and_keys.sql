-- Tenants and keys are changed by several people at once; keys get new secrets; and who did what is written down.

-- Rises with every change, so that nobody overwrites what he has not seen.
alter table tenants
  add column revision integer not null default 1,
  add column updated_at timestamptz not null default now();

alter table api_keys
  add column revision integer not null default 1,
  add column rotated_at timestamptz,
  -- The secret before the last rotation, and until when it is taken.
  add column previous_hash bytea check (octet_length(previous_hash) = 32),
  add column previous_until timestamptz,
  add check ((previous_hash is null) = (previous_until is null));
-- A tenant's keys in order of their making.
drop index api_keys_tenant;
create index api_keys_tenant on api_keys (tenant_id, id);

-- Written with the change it tells of, and never changed. It refers to nothing, because it outlives what it tells of.
create table audit_log (
  id bigint generated always as identity primary key,
  at timestamptz not null default now(),
  -- Who did it.
  key_id text not null,
  actor_tenant_id text not null,
  action text not null,
  -- Whose it was, and what.
  tenant_id text not null,
  subject text not null,
  before jsonb,
  after jsonb,
  request jsonb not null
);
create index audit_log_tenant on audit_log (tenant_id, id);

create function refuse_audit_change() returns trigger language plpgsql as $$
begin
  raise exception 'the audit log is only added to';
end
$$;
create trigger audit_log_immutable before update or delete or truncate on audit_log
  for each statement execute function refuse_audit_change();
