import { type Expected, type Revised, revisionTag } from "#db/revision";
import { CloisterError } from "#errors/catalogue";

/** RFC 9110, 8.8.3. */
const TAG = /(?:W\/)?"[\x21\x23-\x7e\x80-\xff]*"/;
const LIST = new RegExp(`^[ \\t,]*${TAG.source}(?:[ \\t]*,(?:[ \\t]*${TAG.source})?)*[ \\t]*$`);

/** The ETag of a state. */
export const etagOf = (one: Revised): string => `"${revisionTag(one)}"`;

/**
 * The states that If-Match allows (RFC 9110, 13.1.1); undefined for any. Weak tags never match. Throws `bad_request` for what is no
 * If-Match.
 */
export function expectedBy(header: string | undefined): Expected {
  if (header === undefined || header.trim() === "*") return undefined;
  if (!LIST.test(header))
    throw new CloisterError("bad_request", 'If-Match is * or a list of tags like "ten_….3"');
  const tags = header.match(new RegExp(TAG, "g")) ?? [];
  return new Set(tags.filter((tag) => tag.startsWith('"')).map((tag) => tag.slice(1, -1)));
}

/** The same for a change that could undo what its sender has not seen; throws `precondition_required` without the header (RFC 6585, 3). */
export function requiredBy(header: string | undefined): Expected {
  if (header === undefined)
    throw new CloisterError(
      "precondition_required",
      "This change needs If-Match, with the ETag of what was read or *",
    );
  return expectedBy(header);
}
