// The live parts of the dashboard. Whatever comes over the stream is put in as text, never as markup.
const root = document.getElementById("live");
const WINDOW_MS = 60_000;
const MOST_MARKS = 1500;
const MOST_ROWS = 50;
/** The plot moves by steps, never smoothly: each second, or less often where motion is not wanted. */
const STEP_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 5000 : 1000;
const RETRY_MS = 3000;
const SVG = "http://www.w3.org/2000/svg";
const EXITS = {
  syscall: "system call",
  fault: "fault",
  interrupted: "interrupted",
  page_unavailable: "page unavailable",
};
const POOL = ["busy", "warm", "pooled", "prepared", "starting", "waiting"];

const $ = (id) => document.getElementById(id);
const plot = $("live-plot");
const marks = $("live-marks");
const frame = Object.fromEntries(
  Object.entries(plot.dataset).map(([name, value]) => [name, Number(value)]),
);
const unitsPerMs = (frame.right - frame.left) / (frame.seconds * 1000);
const decades = Math.log10(frame.most / frame.least);

/** Batches of the last minute, the oldest first. */
let batches = [];
const drawn = [];
const nodes = new Map();
let paused = false;
let source;
let stepping;

const whole = (value) => Math.round(value).toLocaleString("en-GB");
const ms = (value) =>
  value === undefined ? "–" : `${value >= 100 ? whole(value) : Number(value.toPrecision(3))} ms`;

function element(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** A row of text; cells that are numbers stand right. The first one names it. */
function row(cells) {
  const made = document.createElement("tr");
  for (const [index, [text, number]] of cells.entries()) {
    const cell = element(index === 0 ? "th" : "td", "", number ? "number" : "");
    if (index === 0) cell.scope = "row";
    cell.append(element("bdi", text));
    made.append(cell);
  }
  return made;
}

function say(word, mood, sign) {
  const shown = element("span", "", `state ${mood}`);
  const mark = element("span", sign);
  mark.setAttribute("aria-hidden", "true");
  shown.append(mark, ` ${word}`);
  $("live-state").replaceChildren(shown);
}

function heightOf(value) {
  const part = Math.log10(Math.max(value, frame.least) / frame.least) / decades;
  return frame.bottom - Math.min(1, part) * (frame.bottom - frame.top);
}

/** Marks stand where their time is and all move together. The page's clock is the server's plus a difference. */
const epoch = Date.now();
let clockAhead = 0;
const placeOf = (atMs) => (atMs - epoch) * unitsPerMs;

function draw(call) {
  if (call.bootMs === undefined || !call.path) return;
  const [x, y] = [placeOf(call.atMs), heightOf(call.bootMs)];
  const round = call.path === "container";
  const mark = document.createElementNS(SVG, round ? "circle" : "path");
  if (round) {
    mark.setAttribute("cx", x);
    mark.setAttribute("cy", y);
    mark.setAttribute("r", 3.5);
  } else mark.setAttribute("d", `M${x} ${y - 4.5}l4.5 4.5l-4.5 4.5l-4.5 -4.5Z`);
  mark.setAttribute("class", `mark ${call.path} ${call.start === "warm" ? "warm" : ""}`);
  const title = document.createElementNS(SVG, "title");
  title.textContent = `${call.function ?? call.id}, ${call.path}, ${call.start}: ${ms(call.bootMs)}`;
  mark.append(title);
  marks.append(mark);
  drawn.push({ atMs: call.atMs, mark });
}

function step() {
  if (paused) return;
  const now = Date.now() + clockAhead;
  const old = now - WINDOW_MS;
  while (drawn.length > 0 && (drawn[0].atMs < old || drawn.length > MOST_MARKS))
    drawn.shift().mark.remove();
  batches = batches.filter(({ atMs }) => atMs >= old);
  for (const [node, { atMs }] of nodes) if (atMs < now - 10_000) nodes.delete(node);
  marks.setAttribute("transform", `translate(${frame.right - placeOf(now)} 0)`);
  showSums();
  showPool();
}

const quantile = (sorted, part) =>
  sorted.length === 0 ? undefined : sorted[Math.max(0, Math.ceil(part * sorted.length) - 1)];

function fill(id, rows) {
  const body = $(id);
  if (!body || rows.length === 0) return;
  body.replaceChildren(...rows);
}

function showSums() {
  const kinds = new Map();
  const exits = {};
  let calls = 0;
  for (const batch of batches) {
    for (const sum of batch.sums) {
      const key = `${sum.path ?? "–"} ${sum.start ?? "–"}`;
      const kind = kinds.get(key) ?? { sum, calls: 0, failures: 0, boots: [] };
      kind.calls += sum.calls;
      kind.failures += sum.failures;
      kinds.set(key, kind);
      if (!sum.exits) continue;
      calls += sum.calls;
      for (const [reason, times] of Object.entries(sum.exits))
        exits[reason] = (exits[reason] ?? 0) + times;
    }
    for (const call of batch.calls) {
      const key = `${call.path ?? "–"} ${call.start ?? "–"}`;
      if (call.bootMs !== undefined) kinds.get(key)?.boots.push(call.bootMs);
    }
  }
  fill(
    "live-sums",
    [...kinds.entries()].sort().map(([, { sum, calls: all, failures, boots }]) => {
      boots.sort((a, b) => a - b);
      return row([
        [sum.path ?? "–"],
        [sum.start ?? "–"],
        [whole(all), true],
        [whole(failures), true],
        [ms(quantile(boots, 0.5)), true],
        [ms(quantile(boots, 0.99)), true],
      ]);
    }),
  );
  fill(
    "live-exits",
    Object.entries(exits).map(([reason, times]) =>
      row([[EXITS[reason] ?? reason], [whole(times), true], [(times / calls).toFixed(1), true]]),
    ),
  );
}

function showPool() {
  fill(
    "live-pool",
    [...nodes.entries()]
      .sort()
      .map(([node, { pool }]) => row([[node], ...POOL.map((name) => [whole(pool[name]), true])])),
  );
}

function list(call) {
  const body = $("live-calls");
  body.querySelector("td.none")?.parentElement.remove();
  const at = new Date(call.atMs).toISOString().slice(11, 23);
  const how = call.status === "ok" ? "ok" : (call.errorCode ?? call.status.replaceAll("_", " "));
  body.prepend(
    row([
      [at],
      [call.httpStatus === undefined ? how : `${how} ${call.httpStatus}`],
      ...("all" in root.dataset ? [[call.tenant ?? "–"]] : []),
      [call.function ? `${call.function}@${call.version}` : "–"],
      [call.path ?? "–"],
      [call.start ?? "–"],
      [ms(call.queueMs), true],
      [ms(call.bootMs), true],
      [ms(call.handlerMs), true],
      [ms(call.durationMs), true],
    ]),
  );
  while (body.children.length > MOST_ROWS) body.lastElementChild.remove();
}

function heard(batch) {
  if (paused) return;
  clockAhead = batch.atMs - Date.now();
  if (batch.node) nodes.set(batch.node, batch);
  if (batch.sums.length > 0) batches.push(batch);
  for (const call of batch.calls) {
    draw(call);
    list(call);
  }
  if (batch.sums.length > 0 || batch.node) step();
}

function connect() {
  if (document.hidden) return;
  source = new EventSource(root.dataset.events);
  source.onopen = () => say("following", "good", "●");
  source.onmessage = ({ data }) => heard(JSON.parse(data));
  source.onerror = () => {
    say("not connected; trying again", "warn", "▲");
    // After an answer that is no stream the browser gives up by itself.
    if (source.readyState === EventSource.CLOSED) setTimeout(again, RETRY_MS);
  };
}

/** A stream that was refused may have been so because the sign-in has ended: the page itself then asks for a key. */
async function again() {
  const answer = await fetch(location.href, { method: "HEAD" }).catch(() => undefined);
  if (answer?.status === 401) location.reload();
  else if (!paused) connect();
}

$("live-without").remove();
const pause = $("live-pause");
pause.hidden = false;
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  if (paused) {
    // Nothing is sent to a page that shows nothing.
    source?.close();
    clearInterval(stepping);
    say("paused", "plain", "○");
  } else begin();
});

// A page that nobody sees is told nothing.
document.addEventListener("visibilitychange", () => {
  if (paused) return;
  source?.close();
  connect();
});

function begin() {
  connect();
  stepping = setInterval(step, STEP_MS);
  step();
}
begin();
