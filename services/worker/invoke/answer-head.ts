/** What a function may answer with, checked before it goes on to the gateway. */
export interface AnswerHead {
  status: number;
  headers: [string, string][];
}

const MAX_HEADERS = 200;
const MAX_HEADER_BYTES = 65_536;
/** RFC 9110, 5.6.2: token. */
const NAME = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}$/;
/** RFC 9110, 5.5: no control characters but tab; bytes above 0x7f as Latin-1. */
const VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

/** The head, or one sentence that tells what is wrong with it. */
export function checkAnswerHead(raw: Record<string, unknown>): AnswerHead | string {
  const { status, headers } = raw;
  if (typeof status !== "number" || !Number.isInteger(status) || status < 200 || status > 599)
    return "The function's status is not a whole number from 200 to 599";
  if (!Array.isArray(headers)) return "The function's headers are not a list";
  if (headers.length > MAX_HEADERS) return `The function answered more than ${MAX_HEADERS} headers`;
  let bytes = 0;
  for (const pair of headers as unknown[]) {
    if (!Array.isArray(pair) || pair.length !== 2) return "A header is not a name and a value";
    const [name, value] = pair as unknown[];
    if (typeof name !== "string" || !NAME.test(name))
      return "A header's name is not allowed in HTTP";
    if (typeof value !== "string" || !VALUE.test(value))
      return `The value of the header ${name} is not allowed in HTTP`;
    bytes += name.length + value.length + 4;
  }
  if (bytes > MAX_HEADER_BYTES) return "The function's headers are larger than 64 KiB";
  return { status, headers: headers as [string, string][] };
}
