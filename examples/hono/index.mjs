import { Hono } from "hono";

const app = new Hono();

app.get("/", (c) => c.text("Try /hello/you, or POST a JSON object to /sum.\n"));

app.get("/hello/:name", (c) => c.json({ message: `Hello, ${c.req.param("name")}!` }));

app.post("/sum", async (c) => {
  const body = await c.req.json().catch(() => undefined);
  const numbers = body?.numbers;
  if (!Array.isArray(numbers) || !numbers.every(Number.isFinite))
    return c.json({ error: 'Send {"numbers": [1, 2, 3]}.' }, 400);
  return c.json({ sum: numbers.reduce((sum, number) => sum + number, 0) });
});

app.notFound((c) => c.json({ error: `There is no ${c.req.method} ${c.req.path}.` }, 404));

// A Hono app is an object with fetch(request, env, ctx): all that the runtime asks for.
export default app;
