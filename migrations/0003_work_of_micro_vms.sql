-- What an invocation cost beside time and memory. Absent where the path does not count it: calls and exits are those of micro-VMs.

alter table invocations
  add column exits jsonb,
  add column syscalls jsonb,
  add column page_faults bigint,
  add column guest_ms double precision,
  add column monitor_ms double precision;
