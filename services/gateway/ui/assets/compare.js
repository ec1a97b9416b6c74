// The page of a comparison. Whatever comes over the stream is put in as text, never as markup.
const $ = (id) => document.getElementById(id);
const RETRY_MS = 3000;
const whole = (value) => Math.round(value).toLocaleString("en-GB");
const ms = (value) =>
  value === undefined ? "–" : `${value >= 100 ? whole(value) : Number(value.toPrecision(3))} ms`;

/** A row of text, as the server makes it. */
function row({ path, start, runs, failed, lastMs, failure }) {
  const made = document.createElement("tr");
  const cells = [path, start, whole(runs), whole(failed), ms(lastMs), failure ?? ""];
  for (const [index, text] of cells.entries()) {
    const cell = document.createElement(index === 0 ? "th" : "td");
    if (index === 0) cell.scope = "row";
    if (index >= 2 && index <= 4) cell.className = "number";
    cell.textContent = text;
    made.append(cell);
  }
  return made;
}

function say(word, mood, sign) {
  const shown = document.createElement("span");
  shown.className = `state ${mood}`;
  const mark = document.createElement("span");
  mark.setAttribute("aria-hidden", "true");
  mark.textContent = sign;
  shown.append(mark, ` ${word}`);
  $("compare-state").replaceChildren(shown);
}

function follow(root) {
  $("compare-without").remove();
  const source = new EventSource(root.dataset.events);
  source.onopen = () => say("running", "good", "●");
  source.onmessage = ({ data }) => {
    const { done, of, cells, ended } = JSON.parse(data);
    if (ended) {
      source.close();
      // The server draws the result.
      location.reload();
      return;
    }
    if (of === 0) return;
    $("compare-bar").max = of;
    $("compare-bar").value = done;
    $("compare-done").textContent = `${whole(done)} of ${whole(of)}`;
    $("compare-cells").replaceChildren(...cells.map(row));
  };
  source.onerror = () => {
    say("not connected; trying again", "warn", "▲");
    // After an answer that is no stream the browser gives up by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(again, RETRY_MS);
  };
}

/** The page itself says why it was refused, once somebody is there to say it. */
async function again() {
  const answer = await fetch(location.href, { method: "HEAD" }).catch(() => undefined);
  if (answer) location.reload();
  else setTimeout(again, RETRY_MS);
}

const root = $("compare");
if (root) follow(root);

const copy = $("compare-copy");
// Browsers have a clipboard for pages that came by https, or from this machine.
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener("click", () => {
    const told = $("compare-copied");
    navigator.clipboard.writeText($("compare-markdown").textContent).then(
      () => {
        told.textContent = "Copied.";
      },
      () => {
        told.textContent = "The browser did not allow it: select the text below.";
      },
    );
  });
}
