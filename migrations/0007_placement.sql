-- What was found in a version's bundle, and by which rules its calls were placed. Absent for what is older than this.

alter table versions add column findings jsonb;

alter table invocations
  -- One for each of placement_reasons.
  add column placement_rules text[],
  -- Version of the table that the rules are of.
  add column placement_table text;
