-- What tenants may have, and what they allow their own functions. Fields that are absent in `limits` are the plan's, those that are null unlimited
-- (services/lib/contracts/quota.ts checks them).

create table tenant_quotas (
  tenant_id text primary key references tenants (id) on delete cascade,
  limits jsonb not null check (jsonb_typeof(limits) = 'object'),
  -- Rises with each change: the ETag.
  version integer not null check (version > 0),
  -- The key that made the last change. Keys may be removed, what they did stays.
  changed_by text not null,
  changed_at timestamptz not null default now()
);

create table function_quotas (
  function_id text primary key references functions (id) on delete cascade,
  limits jsonb not null check (jsonb_typeof(limits) = 'object'),
  version integer not null check (version > 0),
  changed_by text not null,
  changed_at timestamptz not null default now()
);
