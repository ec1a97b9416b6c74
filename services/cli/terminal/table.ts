export interface Column {
  title: string;
  /** Numbers stand right. */
  right?: boolean;
}

const coloured = (stream: NodeJS.WriteStream): boolean =>
  stream.isTTY === true && process.env.NO_COLOR === undefined && process.env.TERM !== "dumb";

const paint = (code: number, text: string): string =>
  coloured(process.stdout) ? `\x1b[${code}m${text}\x1b[0m` : text;

export const bold = (text: string): string => paint(1, text);
export const green = (text: string): string => paint(32, text);
export const red = (text: string): string => paint(31, text);
export const yellow = (text: string): string => paint(33, text);

/** Rows as aligned text with a heading; empty cells are shown as such. */
export function table(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const width = columns.map(({ title }, index) =>
    Math.max(title.length, ...rows.map((row) => row[index]?.length ?? 0)),
  );
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, index) => {
        const size = width[index] ?? 0;
        return columns[index]?.right ? cell.padStart(size) : cell.padEnd(size);
      })
      .join("  ")
      .trimEnd();
  const heading = bold(line(columns.map(({ title }) => title)));
  return `${[heading, ...rows.map(line)].join("\n")}\n`;
}

/** What a script reads: one JSON value on one line. */
export const printJson = (value: unknown): void =>
  void process.stdout.write(`${JSON.stringify(value)}\n`);

/** A number of ms as people read it. */
export const ms = (value: number | undefined): string =>
  value === undefined
    ? "-"
    : value < 10
      ? value.toFixed(2)
      : value < 100
        ? value.toFixed(1)
        : value.toFixed(0);
