import { Pool } from "undici";

/**
 * Floods one function in a process of its own, so that whoever measures beside it has an event loop to itself. Arguments: URL, path, calls at once. The key
 * comes as the first message, which begins the flood; every other one is answered with the counts so far. Ends when its parent does.
 */
const [url = "", path = "/", atOnce = "1"] = process.argv.slice(2);
const pool = new Pool(url, { connections: Number(atOnce), pipelining: 1 });
const counts = { answered: 0, refused: 0, failed: 0 };

async function flood(key: string): Promise<never> {
  for (;;) {
    try {
      const { statusCode, body } = await pool.request({
        method: "GET",
        path,
        headers: { authorization: `Bearer ${key}` },
      });
      await body.dump();
      if (statusCode === 200) counts.answered++;
      else if (statusCode === 429 || statusCode === 503) counts.refused++;
      else counts.failed++;
    } catch {
      counts.failed++;
    }
  }
}

process.once("message", (key) => {
  for (let n = 0; n < Number(atOnce); n++) void flood(String(key));
  process.on("message", () => process.send?.(counts));
});
process.once("disconnect", () => process.exit(0));
