// Node runs TypeScript as it is, without a build, when its types can simply be erased: no enums, no parameter properties. Deploy it for
// node22 or newer.

interface Item {
  name: string;
  count: number;
  priceCents: number;
}

interface Receipt {
  items: number;
  totalCents: number;
}

export default {
  async fetch(request: Request): Promise<Response> {
    const order: unknown = await request.json().catch(() => undefined);
    if (!isOrder(order))
      return Response.json(
        { error: 'POST [{"name": "pen", "count": 2, "priceCents": 150}].' },
        { status: 400 },
      );
    return Response.json(receiptOf(order));
  },
};

function receiptOf(order: Item[]): Receipt {
  let receipt: Receipt = { items: 0, totalCents: 0 };
  for (const { count, priceCents } of order)
    receipt = {
      items: receipt.items + count,
      totalCents: receipt.totalCents + count * priceCents,
    };
  return receipt;
}

const isOrder = (value: unknown): value is Item[] => Array.isArray(value) && value.every(isItem);

function isItem(value: unknown): value is Item {
  if (typeof value !== "object" || value === null) return false;
  const { name, count, priceCents } = value as Partial<Item>;
  return typeof name === "string" && isCount(count) && isCount(priceCents);
}

const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && Number(value) >= 0;
