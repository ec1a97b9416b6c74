/** A function that is loaded and called before any other, so that what every function needs is warm. */
export default {
  async fetch(request) {
    console.log("%s %d", new URL(request.url).searchParams.get("name"), 1, { a: [1] });
    return Response.json(await request.json(), { headers: { "x-name": "value" } });
  },
};
