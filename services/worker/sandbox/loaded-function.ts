/** A function's files, by digest and as the folder they are unpacked in. */
export interface BundleRef {
  digest: string;
  path: string;
}

/** The INIT frame's payload (runtime/protocol), without what the sandbox itself adds: root, seed and clock. */
export interface InitMessage {
  function: string;
  version: number;
  entry?: string;
  env: Record<string, string>;
  memoryMb: number;
  timeoutMs: number;
  /** It is to be frozen once it is loaded. */
  snapshot?: { warmTurns: number };
}
