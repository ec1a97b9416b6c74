/** Nodes; each has ten edges. */
const SIZES = { small: 1000, medium: 10_000, large: 60_000 };
const EDGES_EACH = 10;

const ALGORITHMS = { bfs, pagerank, mst };

/** One algorithm on a graph that is the same for everybody: `?algorithm=bfs|pagerank|mst`. */
export const handler = async (event) => {
  const given = { ...event, ...event.queryStringParameters };
  const { size = "small", algorithm = "bfs" } = given;
  if (!Object.hasOwn(SIZES, size))
    return { statusCode: 400, body: "size is small, medium or large" };
  if (!Object.hasOwn(ALGORITHMS, algorithm))
    return { statusCode: 400, body: "algorithm is bfs, pagerank or mst" };
  return { algorithm, nodes: SIZES[size], answer: ALGORITHMS[algorithm](graphOf(SIZES[size])) };
};

/** Edges as three lists: from, to, weight. The first edge of each node leads to an earlier one, so all hang together. */
function graphOf(nodes) {
  const random = generator(42);
  const from = new Int32Array(nodes * EDGES_EACH);
  const to = new Int32Array(from.length);
  const weight = new Int32Array(from.length);
  let edge = 0;
  for (let node = 0; node < nodes; node++)
    for (let nth = 0; nth < EDGES_EACH; nth++) {
      from[edge] = node;
      to[edge] = random() % (nth === 0 ? Math.max(1, node) : nodes);
      weight[edge++] = 1 + (random() % 1000);
    }
  return { nodes, from, to, weight };
}

/** Where each node's edges begin in a list of neighbours, both ways. */
function neighboursOf({ nodes, from, to }) {
  const starts = new Int32Array(nodes + 1);
  for (let edge = 0; edge < from.length; edge++) {
    starts[from[edge] + 1]++;
    starts[to[edge] + 1]++;
  }
  for (let node = 0; node < nodes; node++) starts[node + 1] += starts[node];
  const next = starts.slice();
  const list = new Int32Array(from.length * 2);
  for (let edge = 0; edge < from.length; edge++) {
    list[next[from[edge]]++] = to[edge];
    list[next[to[edge]]++] = from[edge];
  }
  return { starts, list };
}

/** Steps from node 0: how many nodes are reached, the most steps, and the sum of all. */
function bfs(graph) {
  const { starts, list } = neighboursOf(graph);
  const steps = new Int32Array(graph.nodes).fill(-1);
  const queue = new Int32Array(graph.nodes);
  steps[0] = 0;
  let length = 1;
  let sum = 0;
  for (let at = 0; at < length; at++) {
    const node = queue[at];
    sum += steps[node];
    for (let edge = starts[node]; edge < starts[node + 1]; edge++) {
      const other = list[edge];
      if (steps[other] >= 0) continue;
      steps[other] = steps[node] + 1;
      queue[length++] = other;
    }
  }
  return { reached: length, farthest: steps[queue[length - 1]], sum };
}

/** Twenty rounds with the usual damping: the best node, and what it is worth to nine digits. */
function pagerank({ nodes, from, to }) {
  let rank = new Float64Array(nodes).fill(1 / nodes);
  for (let round = 0; round < 20; round++) {
    const next = new Float64Array(nodes).fill(0.15 / nodes);
    for (let edge = 0; edge < from.length; edge++)
      next[to[edge]] += (0.85 * rank[from[edge]]) / EDGES_EACH;
    rank = next;
  }
  let best = 0;
  for (let node = 1; node < nodes; node++) if (rank[node] > rank[best]) best = node;
  return { best, rank: rank[best].toFixed(9) };
}

/** Kruskal's: the weight of the lightest tree, and its edges. */
function mst({ nodes, from, to, weight }) {
  const order = Int32Array.from(from.keys()).sort((a, b) => weight[a] - weight[b] || a - b);
  const parent = Int32Array.from({ length: nodes }, (_, node) => node);
  const rootOf = (start) => {
    let node = start;
    while (parent[node] !== node) {
      parent[node] = parent[parent[node]];
      node = parent[node];
    }
    return node;
  };
  let total = 0;
  let edges = 0;
  for (const edge of order) {
    const [one, other] = [rootOf(from[edge]), rootOf(to[edge])];
    if (one === other) continue;
    parent[one] = other;
    total += weight[edge];
    edges++;
  }
  return { total, edges };
}

/** A linear congruential generator of 31 bits, of which the upper ones are given: the same in every language. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return state >> 8;
  };
}
