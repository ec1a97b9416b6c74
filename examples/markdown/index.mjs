import MarkdownIt from "markdown-it";

// Made once per sandbox, before its first request. HTML in the text is shown, not passed on: the text is a stranger's.
const markdown = new MarkdownIt({ linkify: true, html: false });

export default {
  async fetch(request) {
    if (request.method !== "POST")
      return new Response("POST Markdown here, get HTML back.\n", {
        status: 405,
        headers: { allow: "POST" },
      });
    return new Response(markdown.render(await request.text()), {
      headers: { "content-type": "text/html; charset=utf-8" },
    });
  },
};
