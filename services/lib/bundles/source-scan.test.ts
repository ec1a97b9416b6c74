import assert from "node:assert/strict";
import { test } from "node:test";
import { scanSource } from "./source-scan.ts";

/** What is seen in a file, as `used|mentioned what:line`. */
const scan = (path: string, text: string): string[] =>
  scanSource(path, Buffer.from(text)).map(
    ({ used, what, line }) => `${used ? "used" : "mentioned"} ${what}:${line}`,
  );

const JAVASCRIPT: [string, string, string[]][] = [
  [
    "a named import that is called",
    'import { spawn, exec as run } from "node:child_process";\n\nrun("x");\n',
    ["used exec of child_process:3"],
  ],
  [
    "a namespace",
    "import * as cp from 'child_process'\nexport const f = () => cp.spawnSync('x')",
    ["used spawnSync of child_process:2"],
  ],
  [
    "a required module",
    'const { execFile } = require("child_process");\nconst p = promisify(execFile);',
    ["used execFile of child_process:2"],
  ],
  [
    "a name given by a pattern",
    'const { exec: go } = require("node:child_process");\n\n\ngo("x")',
    ["used exec of child_process:4"],
  ],
  [
    "a call on the spot",
    '// x\nrequire("child_process").execSync("x")',
    ["used execSync of child_process:2"],
  ],
  [
    "an import without a use",
    'import { spawn } from "node:child_process";',
    ["mentioned import of child_process:1"],
  ],
  [
    "an import when it comes to it",
    'export const f = async () => {\n  await import("node:child_process");\n};',
    ["mentioned import of child_process:2"],
  ],
  ["a type", 'import type { ChildProcess } from "node:child_process"; let a: ChildProcess;', []],
  [
    "a type among others",
    'import { type ChildProcess, spawn } from "node:child_process"; let a: ChildProcess;',
    ["mentioned import of child_process:1"],
  ],
  [
    "a type that does not say so",
    'import { ChildProcess } from "node:child_process"; let a: ChildProcess;',
    ["mentioned import of child_process:1"],
  ],
  [
    "the whole and a part",
    'import cp, { ChildProcess } from "node:child_process";\nlet a: ChildProcess;\ncp.fork("x");',
    ["used fork of child_process:3"],
  ],
  [
    "a module that is asked for something else",
    'const cluster = require("cluster");\nif (cluster.isWorker) work();',
    ["mentioned import of cluster:1"],
  ],
  ["a comment", '// const { spawn } = require("child_process"); spawn()', []],
  ["a comment of lines", '/*\nimport { spawn } from "child_process"; spawn()\n*/', []],
  ["a text", 'console.log("child_process");', []],
  ["exec of a pattern", "const found = /child_process/.exec(text); exec(found);", []],
  [
    "workers of a cluster",
    'import cluster from "node:cluster";\ncluster.fork();',
    ["used fork of cluster:2"],
  ],
];
for (const [name, text, expected] of JAVASCRIPT)
  test(`JavaScript, ${name}`, () => {
    for (const file of ["index.mjs", "lib/a.ts", "b.cjs"])
      assert.deepEqual(scan(file, text), expected);
  });

const PYTHON: [string, string, string[]][] = [
  [
    "subprocess",
    "import subprocess\n\ndef handler(e, c):\n    return subprocess.run(['x'])\n",
    ["used run of subprocess:4"],
  ],
  ["os", "import os\nos.system('x')\n", ["used system of os:2"]],
  ["fork", "import os\nif os.fork() == 0:\n    pass\n", ["used fork of os:2"]],
  ["harmless os", "import os\nos.environ.get('HOME')\nos.path.join('a')\n", []],
  [
    "a name of subprocess",
    "from subprocess import PIPE, check_output as out\n\nout('x')\n",
    ["used out of subprocess:3"],
  ],
  [
    "only its constants",
    "from subprocess import PIPE\nx = PIPE\n",
    ["mentioned import of subprocess:1"],
  ],
  [
    "a pool of processes",
    "from concurrent.futures import ProcessPoolExecutor\nwith ProcessPoolExecutor() as p:\n    pass\n",
    ["used ProcessPoolExecutor of concurrent.futures:2"],
  ],
  [
    "an import without a use",
    "import multiprocessing\n",
    ["mentioned import of multiprocessing:1"],
  ],
  ["a comment", "# import subprocess; subprocess.run(1)\n", []],
  ["a text of documentation", '"""\nimport subprocess\nsubprocess.run(x)\n"""\n', []],
  ["a method of another object", "self.subprocess.run()\nmacos.system()\n", []],
];
for (const [name, text, expected] of PYTHON)
  test(`Python, ${name}`, () => assert.deepEqual(scan("main.py", text), expected));

test("sources made to keep a scan busy end like others", { timeout: 20_000 }, () => {
  const many = (text: string): string => text.repeat(Math.floor(250_000 / text.length));
  const hostile = [
    `"child_process"${many("/*")}`,
    `"child_process"${many("import ")}`,
    `import${many(" ")}from "child_process"`,
    many('import{a}from"child_process";'),
    `import{${many("a,")}}from"child_process"`,
    `const {${many("a:b,")}} = require("child_process")`,
    `from subprocess import ${many("a,")}`,
    `os.${many("'''")}`,
    `os.${many(`"""'''`)}`,
    many("from subprocess import a\n"),
    many("os.system ("),
    `pty${many("\t")}\n`,
  ];
  for (const text of hostile)
    for (const file of ["a.mjs", "a.py"]) assert.ok(scan(file, text).length < 100);
});
