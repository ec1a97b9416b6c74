/** One line of `doctor`. */
export interface Finding {
  name: string;
  state: "ok" | "missing";
  detail: string;
  /** Without it the service of this version does not run. */
  required: boolean;
  /** What to do; there when it is missing. */
  remedy?: string;
}

export const found = (name: string, detail: string): Finding => ({
  name,
  state: "ok",
  detail,
  required: false,
});

/** Something the service cannot do without. */
export const lacking = (name: string, detail: string, remedy: string): Finding => ({
  name,
  state: "missing",
  detail,
  required: true,
  remedy,
});

/** Something that only makes less possible. */
export const absent = (name: string, detail: string, remedy: string): Finding => ({
  name,
  state: "missing",
  detail,
  required: false,
  remedy,
});
