import { CloisterError } from "#errors/catalogue";

/** What can be changed by several people at once. */
export interface Revised {
  id: string;
  /** Rises with every change. */
  revision: number;
}

/** Tags of which the present one must be one; absent: whatever it is. */
export type Expected = ReadonlySet<string> | undefined;

/** Names one state of one thing: of two with the same name, one after the other, no states are taken for each other. */
export const revisionTag = ({ id, revision }: Revised): string => `${id}.${revision}`;

/** Throws `precondition_failed` unless the state is one that the caller has seen. To be called under the row's lock. */
export function checkExpected(one: Revised, expected: Expected): void {
  if (expected && !expected.has(revisionTag(one)))
    throw new CloisterError("precondition_failed", `${one.id} is at revision ${one.revision} now`);
}
