/** The least a function can do: what is measured is everything around it. */
export const handler = async () => ({ message: "Hello, world!" });
