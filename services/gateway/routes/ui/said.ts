/** What was just done, told on the page one comes to afterwards. */
const SAID: Readonly<Record<string, string>> = {
  "tenant-created": "The tenant was created. Next, make a key for it.",
  "tenant-deleted": "The tenant was deleted.",
  "tenant-changed": "The trust tier was changed.",
  "tenant-suspended": "The tenant is suspended: new work is refused, what runs is finished.",
  "tenant-resumed": "The tenant is served again.",
  "quota-saved": "The quota was saved; every gateway follows within a second.",
  "key-revoked": "The key was revoked.",
  "signed-out": "You are signed out.",
};

/** An address to go to after something was done. */
export function after(path: string, what: keyof typeof SAID & string): string {
  const [place, fragment] = path.split("#");
  return `${place}?said=${what}${fragment === undefined ? "" : `#${fragment}`}`;
}

export const saidOf = (what: string | undefined): string | undefined =>
  what !== undefined && Object.hasOwn(SAID, what) ? SAID[what] : undefined;
