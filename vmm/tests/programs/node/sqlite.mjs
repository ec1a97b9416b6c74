// The database that comes with Node, in memory and in a file.
import { statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";

for (const place of [":memory:", "/tmp/data.db"]) {
  const database = new DatabaseSync(place);
  if (place !== ":memory:") console.log(database.prepare("PRAGMA journal_mode=WAL").get());
  database.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT, n REAL, b BLOB)");
  const insert = database.prepare("INSERT INTO t (text, n, b) VALUES (?, ?, ?)");
  database.exec("BEGIN");
  for (let i = 0; i < 5000; i++) insert.run(`row ${i}`, i / 3, Buffer.from([i & 255]));
  database.exec("COMMIT");
  console.log(
    place,
    database.prepare("SELECT count(*) AS n, sum(n) AS s FROM t WHERE text LIKE '%7%'").get(),
  );
  database.exec("CREATE INDEX i ON t (text); DELETE FROM t WHERE id % 2; VACUUM");
  console.log(database.prepare("SELECT * FROM t ORDER BY n DESC LIMIT 2").all());
  database.close();
}
console.log(statSync("/tmp/data.db").size > 10_000);
const reader = new DatabaseSync("/tmp/data.db", { readOnly: true });
console.log(reader.prepare("SELECT count(*) AS n FROM t").get());
try {
  reader.exec("DROP TABLE t");
} catch (error) {
  console.log(error.code, error.message);
}
