import type { Finding } from "#contracts/needs";

/** Something in one file that a function may need; `used` when the file does more than mention it. */
export interface Seen extends Finding {
  used: boolean;
}

/** Declarations of types run nothing. */
const JAVASCRIPT = /(?<!\.d)\.[cm]?[jt]sx?$/;
const PYTHON = /\.py$/;

export const isSource = (path: string): boolean => JAVASCRIPT.test(path) || PYTHON.test(path);

/** What a file must hold to be worth a closer look: most hold none of it. */
const WORDS = {
  javascript: ["child_process", "cluster"],
  python: ["subprocess", "multiprocessing", "ProcessPoolExecutor", "os.", "pty"],
} as const;

/** More imports of a kind, names bound by one, and uses than this are not looked at: a source must not be a way to keep us busy. */
const MAX_IMPORTS = 4;
const MAX_NAMES = 8;
/** An import statement is at most this long, characters. */
const STATEMENT = 600;

/**
 * Looks through a source for what starts other programs or processes. This is no parser: comments are taken out as they usually stand, so what it
 * says is good for choosing a path and for telling people, not for keeping anything out. Takes time in proportion to the source, whatever is in it.
 */
export function scanSource(path: string, source: Buffer): Seen[] {
  const python = PYTHON.test(path);
  const words = python ? WORDS.python : WORDS.javascript;
  if (!words.some((word) => source.includes(word))) return [];
  const text = source.toString("utf8");
  const seen = python ? pythonOf(text) : javascriptOf(text);
  return seen.map(({ what, at, used }) => ({
    need: "subprocess",
    what,
    file: path,
    line: lineOf(text, at),
    used,
  }));
}

interface Spot {
  what: string;
  at: number;
  used: boolean;
}

function lineOf(text: string, at: number): number {
  let line = 1;
  for (let next = text.indexOf("\n"); next >= 0 && next < at; next = text.indexOf("\n", next + 1))
    line++;
  return line;
}

/** Spaces where text was, so that every other character keeps its place and line. */
const blank = (text: string): string => text.replace(/[^\n]/g, " ");

/** A pattern for such comments would look through the whole rest from each start that has no end. */
function withoutBlockComments(text: string): string {
  const parts: string[] = [];
  let from = 0;
  for (;;) {
    const start = text.indexOf("/*", from);
    const end = start < 0 ? -1 : text.indexOf("*/", start + 2);
    if (end < 0) break;
    parts.push(text.slice(from, start), blank(text.slice(start, end + 2)));
    from = end + 2;
  }
  parts.push(text.slice(from));
  return parts.join("");
}

const LINE_COMMENT = /(?<=^|[\s;{}(),])\/\/.*$/gm;
const MODULE = /(["'])(?:node:)?(child_process|cluster)\1/g;

function javascriptOf(text: string): Spot[] {
  const code = withoutBlockComments(text).replace(LINE_COMMENT, blank);
  const spots: Spot[] = [];
  let mention: Spot | undefined;
  let imports = 0;
  for (const match of code.matchAll(MODULE)) {
    const [quoted, , module] = match;
    const before = code.slice(Math.max(0, match.index - STATEMENT), match.index).trimEnd();
    const after = match.index + quoted.length;
    const names = importedNames(before) ?? requiredNames(before);
    if (!names) continue;
    mention ??= { what: `import of ${module}`, at: match.index, used: false };
    if (++imports > MAX_IMPORTS) break;
    // require("child_process").execSync(…
    const called = /^\s{0,9}\)\s{0,9}\.\s{0,9}(\w{1,40})\s{0,9}\(/.exec(
      code.slice(after, after + 99),
    );
    if (called) spots.push({ what: `${called[1]} of ${module}`, at: match.index, used: true });
    for (const name of names.slice(0, MAX_NAMES)) {
      const use = useOf(code, name, after);
      if (use) spots.push({ what: `${use.what} of ${module}`, at: use.at, used: true });
    }
  }
  return spots.length > 0 || !mention ? spots : [mention];
}

/** What an import statement binds that ends before the module's name; undefined when there is none. */
function importedNames(before: string): Bound[] | undefined {
  if (/\bimport$/.test(before.slice(-7))) return [];
  if (!/[\s}*]from$/.test(before.slice(-5))) return undefined;
  const start = Math.max(before.lastIndexOf("import"), before.lastIndexOf("export"));
  if (start < 0) return undefined;
  const bound = before.slice(start + "import".length, -"from".length);
  // Types start nothing.
  return /^\s+type\s/.test(bound) ? undefined : boundNames(bound);
}

/** The same for `require(` and `import(`. */
function requiredNames(before: string): Bound[] | undefined {
  if (!before.endsWith("(")) return undefined;
  const called = before.slice(0, -1).trimEnd();
  if (/\bimport$/.test(called.slice(-7))) return [];
  if (!/\brequire$/.test(called.slice(-8))) return undefined;
  const assigned = called.slice(0, -"require".length).trimEnd();
  if (!assigned.endsWith("=")) return [];
  const target = assigned.slice(0, -1).trimEnd();
  const start = target.endsWith("}") ? target.lastIndexOf("{") : target.search(/[\w$]{1,99}$/);
  return start < 0 ? [] : boundNames(target.slice(start));
}

/** What of the modules starts something; the rest are types and settings. */
const STARTERS = "(?:spawn|exec|execFile)(?:Sync)?|fork|setupPrimary|setupMaster";
const STARTER = new RegExp(`^(?:${STARTERS})$`);

/** A name that an import or a pattern binds, to the whole module or to what starts something. */
interface Bound {
  local: string;
  /** Absent for the whole module. */
  starter?: string;
}

/** Of `cp`, `* as cp`, `{ spawn, exec as run }`, `{ exec: run }`. */
function boundNames(bound: string): Bound[] {
  const [outside = "", inside = ""] = bound.split(/[{}]/, 2);
  const whole = outside
    .split(",")
    .map((part): Bound => ({ local: part.replace("* as", "").trim() }));
  const parts = inside.split(",").flatMap((part): Bound[] => {
    const [starter = "", local = starter] = part.split(/ as |:/).map((word) => word.trim());
    if (starter === "default") return [{ local }];
    return STARTER.test(starter) ? [{ local, starter }] : [];
  });
  return [...whole, ...parts].filter(({ local }) => /^[\w$]{1,99}$/.test(local));
}

/** Where a name stands again after `from` to start something: by itself, or as the module that has it. */
function useOf(
  code: string,
  { local, starter }: Bound,
  from: number,
): { at: number; what: string } | undefined {
  const name = `(?<![\\w$.])${local.replaceAll("$", "\\$")}`;
  const use = new RegExp(
    starter === undefined ? `${name}\\.(${STARTERS})\\b` : `${name}(?![\\w$:])`,
    "g",
  );
  use.lastIndex = from;
  const found = use.exec(code);
  return found ? { at: found.index, what: found[1] ?? starter ?? local } : undefined;
}

const PYTHON_SILENT = /("""|''')[\s\S]*?\1|(?<=^|\s)#.*$/gm;
const CALLS: readonly [string, RegExp][] = [
  ["os", /(?<![\w.])os\.(fork|forkpty|system|popen|posix_spawnp?|spawn[lv]p?e?|exec[lv]p?e?)\(/],
  [
    "subprocess",
    /(?<![\w.])subprocess\.(run|call|check_call|check_output|Popen|getoutput|getstatusoutput)\(/,
  ],
  ["multiprocessing", /(?<![\w.])multiprocessing\.(Process|Pool|Manager|get_context)\(/],
  ["asyncio", /(?<![\w.])asyncio\.(create_subprocess_(?:exec|shell))\(/],
  ["concurrent.futures", /(?<!\w)(ProcessPoolExecutor)\(/],
  ["pty", /(?<![\w.])pty\.(fork|spawn)\(/],
];
const FROM_IMPORT =
  /^[ \t]*from (subprocess|multiprocessing|asyncio\.subprocess|pty) import \(?([\w ,]{1,500})/gm;
const PLAIN_IMPORT = /^[ \t]*(?:import|from) (subprocess|multiprocessing|pty)\b/m;
/** Constants and exceptions of these modules start nothing. */
const STARTS = /^(?:[a-z_]\w{0,98}|Popen|Process|Pool|Manager)$/;

function pythonOf(text: string): Spot[] {
  const code = text.replace(PYTHON_SILENT, blank);
  const spots: Spot[] = [];
  for (const [module, pattern] of CALLS) {
    const call = pattern.exec(code);
    if (call) spots.push({ what: `${call[1]} of ${module}`, at: call.index, used: true });
  }
  let imports = 0;
  for (const [, module, names = ""] of code.matchAll(FROM_IMPORT)) {
    if (++imports > MAX_IMPORTS) break;
    for (const part of names.split(",").slice(0, MAX_NAMES)) {
      const name = part.split(" as ").at(-1)?.trim() ?? "";
      if (!STARTS.test(name)) continue;
      const call = new RegExp(`(?<![\\w.])${name}\\(`).exec(code);
      if (call) spots.push({ what: `${name} of ${module}`, at: call.index, used: true });
    }
  }
  if (spots.length > 0) return spots;
  const mention = PLAIN_IMPORT.exec(code);
  return mention ? [{ what: `import of ${mention[1]}`, at: mention.index, used: false }] : [];
}
