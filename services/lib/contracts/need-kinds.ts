import { z } from "zod";

/** What a function may need beside its runtime; found by looking at its bundle and its configuration. */
export const NEEDS = ["native-program", "native-addon", "subprocess", "egress"] as const;
export const needSchema = z.enum(NEEDS);
export type Need = z.infer<typeof needSchema>;
