-- Who there is, what they may do, and what they have published.

create table tenants (
  id text primary key,
  name text not null unique,
  tier text not null check (tier in ('trusted', 'standard', 'untrusted')),
  state text not null default 'active' check (state in ('active', 'suspended')),
  created_at timestamptz not null default now()
);

create table api_keys (
  id text primary key,
  tenant_id text not null references tenants (id) on delete cascade,
  name text not null,
  -- SHA-256 of the secret part; the secret itself has 256 random bits, so a slow hash would add nothing.
  secret_hash bytea not null check (octet_length(secret_hash) = 32),
  scopes text[] not null check (scopes <@ array['invoke', 'deploy', 'read', 'admin'] and cardinality(scopes) > 0),
  created_at timestamptz not null default now(),
  last_used_at timestamptz,
  expires_at timestamptz,
  revoked_at timestamptz
);
create index api_keys_tenant on api_keys (tenant_id);

create table bundles (
  -- SHA-256 of content, lower-case hex.
  digest text primary key check (digest ~ '^[0-9a-f]{64}$'),
  content bytea not null,
  size_bytes integer not null,
  unpacked_bytes bigint not null,
  -- Last publication; what no version uses is removed some time after it.
  touched_at timestamptz not null default now()
);
-- Compressed already.
alter table bundles alter column content set storage external;

create table functions (
  id text primary key,
  tenant_id text not null references tenants (id) on delete cascade,
  name text not null,
  current_version integer not null,
  public boolean not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz
);
-- A name is free again once its function is deleted.
create unique index functions_name on functions (tenant_id, name) where deleted_at is null;

create table versions (
  id text primary key,
  function_id text not null references functions (id) on delete cascade,
  number integer not null check (number > 0),
  bundle_digest text not null references bundles (digest),
  config jsonb not null,
  created_at timestamptz not null default now(),
  unique (function_id, number)
);
create index versions_bundle on versions (bundle_digest);

-- What a version is made of never changes.
create function refuse_version_change() returns trigger language plpgsql as $$
begin
  raise exception 'versions are immutable';
end
$$;
create trigger versions_immutable before update on versions
  for each row execute function refuse_version_change();
