/** How the demo calls an example, and what a right answer looks like. */
export interface Expectation {
  path: string;
  method?: "GET" | "POST";
  body?: string;
  answer: RegExp;
}

const EXPECTED: Record<string, Expectation> = {
  hello: { path: "/?name=demo", answer: /Hello, demo!/ },
  "hello-python": { path: "/?name=demo", answer: /Hello, demo!/ },
  "hello-asgi": { path: "/demo", answer: /Hello from ASGI at \/demo/ },
  "hello-wsgi": { path: "/demo", answer: /Hello from WSGI at \/demo/ },
  "hello-binary": { path: "/", answer: /Hello from a native program!/ },
};

/** An example nobody has written an expectation for must at least answer something with 200. */
const ANYTHING: Expectation = { path: "/", answer: /\S/ };

export const expectationOf = (name: string): Expectation => EXPECTED[name] ?? ANYTHING;
