import type { z } from "zod";

/** What a schema says against a value, in words for who has typed it. */
export function issueWords(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "too_small":
      if (issue.origin === "array" || issue.origin === "set") return "choose at least one";
      if (issue.origin === "string") return "must not be empty";
      return `at least ${Number(issue.minimum).toLocaleString("en-GB")}`;
    case "too_big":
      if (issue.origin === "string") return `at most ${issue.maximum} characters`;
      return `at most ${Number(issue.maximum).toLocaleString("en-GB")}`;
    case "invalid_type":
      if (issue.expected === "number") return "a number";
      return issue.expected === "int" ? "a whole number" : issue.message;
    case "invalid_value":
      return `one of ${issue.values.join(", ")}`;
    case "invalid_union":
      return "a date and a time";
    default:
      return issue.message;
  }
}
