"""One algorithm on a graph that is the same for everybody: `?algorithm=bfs|pagerank|mst`. The same graph as ../graph."""

# Nodes; each has ten edges.
SIZES = {"small": 1000, "medium": 10_000, "large": 60_000}
EDGES_EACH = 10


def handler(event, context):
    given = {**event, **(event.get("queryStringParameters") or {})}
    size, algorithm = given.get("size", "small"), given.get("algorithm", "bfs")
    if size not in SIZES:
        return {"statusCode": 400, "body": "size is small, medium or large"}
    if algorithm not in ALGORITHMS:
        return {"statusCode": 400, "body": "algorithm is bfs, pagerank or mst"}
    nodes = SIZES[size]
    return {"algorithm": algorithm, "nodes": nodes, "answer": ALGORITHMS[algorithm](nodes, *graph_of(nodes))}


def graph_of(nodes):
    """Edges as three lists: from, to, weight. The first edge of each node leads to an earlier one, so all hang together."""
    draw = generator(42).__next__
    starts, ends, weights = [], [], []
    for node in range(nodes):
        for nth in range(EDGES_EACH):
            starts.append(node)
            ends.append(draw() % (max(1, node) if nth == 0 else nodes))
            weights.append(1 + draw() % 1000)
    return starts, ends, weights


def bfs(nodes, starts, ends, weights):
    """Steps from node 0: how many nodes are reached, the most steps, and the sum of all."""
    neighbours = [[] for _ in range(nodes)]
    for start, end in zip(starts, ends):
        neighbours[start].append(end)
        neighbours[end].append(start)
    steps = [-1] * nodes
    steps[0] = 0
    queue = [0]
    for node in queue:
        for other in neighbours[node]:
            if steps[other] < 0:
                steps[other] = steps[node] + 1
                queue.append(other)
    return {"reached": len(queue), "farthest": steps[queue[-1]], "sum": sum(steps[node] for node in queue)}


def pagerank(nodes, starts, ends, weights):
    """Twenty rounds with the usual damping: the best node, and what it is worth to nine digits."""
    rank = [1 / nodes] * nodes
    for _ in range(20):
        following = [0.15 / nodes] * nodes
        for start, end in zip(starts, ends):
            following[end] += 0.85 * rank[start] / EDGES_EACH
        rank = following
    best = max(range(nodes), key=rank.__getitem__)
    return {"best": best, "rank": f"{rank[best]:.9f}"}


def mst(nodes, starts, ends, weights):
    """Kruskal's: the weight of the lightest tree, and its edges."""
    parent = list(range(nodes))

    def root_of(node):
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    total = edges = 0
    for edge in sorted(range(len(starts)), key=weights.__getitem__):
        one, other = root_of(starts[edge]), root_of(ends[edge])
        if one != other:
            parent[one] = other
            total += weights[edge]
            edges += 1
    return {"total": total, "edges": edges}


ALGORITHMS = {"bfs": bfs, "pagerank": pagerank, "mst": mst}


def generator(seed):
    """A linear congruential generator of 31 bits, of which the upper ones are given: the same in every language."""
    state = seed
    while True:
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        yield state >> 8
