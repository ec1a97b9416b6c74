/** An answer that is not JSON, of a route that gives JSON as well: a route's type holds its handler to the latter alone. */
export const notJson = (answer: Response): never => answer as never;
