/** Loaded once before any function, so that the ES module loader is warm. */
export const loaded = true;
