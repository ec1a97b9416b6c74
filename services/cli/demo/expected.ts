/** How the demo calls an example, and what a right answer looks like. */
export interface Expectation {
  path: string;
  method?: "GET" | "POST";
  body?: string;
  answer: RegExp;
  /** Warm calls for the median, when one takes so long that the usual number would make people wait. */
  warmCalls?: number;
}

const EXPECTED: Record<string, Expectation> = {
  hello: { path: "/?name=demo", answer: /Hello, demo!/ },
  "hello-asgi": { path: "/demo", answer: /Hello from ASGI at \/demo/ },
  "hello-binary": { path: "/", answer: /Hello from a native program!/ },
  "hello-python": { path: "/?name=demo", answer: /Hello, demo!/ },
  "hello-wsgi": { path: "/demo", answer: /Hello from WSGI at \/demo/ },
  hono: { path: "/hello/demo", answer: /^\{"message":"Hello, demo!"\}$/ },
  markdown: {
    path: "/",
    method: "POST",
    body: "Hello, **demo**!",
    answer: /^<p>Hello, <strong>demo<\/strong>!<\/p>\n$/,
  },
  primes: { path: "/?size=small", answer: /"below":100000,"primes":9592,/ },
  stream: {
    path: "/",
    answer: /^An answer that streams has begun before it is whole\. \n$/,
    warmCalls: 3,
  },
  "stream-python": {
    path: "/",
    answer: /^An answer that streams has begun before it is whole\. \n$/,
    warmCalls: 3,
  },
  typescript: {
    path: "/",
    method: "POST",
    body: '[{"name":"pen","count":2,"priceCents":150}]',
    answer: /^\{"items":2,"totalCents":300\}$/,
  },
};

/** An example nobody has written an expectation for must at least answer something with 200. */
const ANYTHING: Expectation = { path: "/", answer: /\S/ };

/** Whether the demo knows what the example should answer. */
export const isExpected = (name: string): boolean => Object.hasOwn(EXPECTED, name);

export const expectationOf = (name: string): Expectation => EXPECTED[name] ?? ANYTHING;
