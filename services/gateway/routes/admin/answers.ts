/** Parts that the admin routes' descriptions share. */
export const security = [{ key: [] }];

export const json = <T>(schema: T, description: string) => ({
  description,
  content: { "application/json": { schema } },
});

export const body = <T>(schema: T) => ({
  body: { required: true, content: { "application/json": { schema } } },
});
