"""A sequence as a line, and that as a drawing. The same sequence and drawing as ../dna."""

import hashlib

# Bases of the sequence.
SIZES = {"small": 2000, "medium": 100_000, "large": 2_000_000}
# Points of the drawing at most: the rest would be thinner than its line.
MOST_POINTS = 2000

# Each base takes two steps of half a unit: A goes up and down, C down and up, T down, G up.
STEPS = {"A": (1, -1), "C": (-1, 1), "T": (-1, -1), "G": (1, 1)}


def handler(event, context):
    size = (event.get("queryStringParameters") or {}).get("size") or event.get("size") or "small"
    if size not in SIZES:
        return {"statusCode": 400, "body": "size is small, medium or large"}
    sequence = sequence_of(SIZES[size])
    heights = heights_of(sequence)
    svg = drawing_of(heights)
    return {
        "bases": len(sequence),
        "low": min(heights),
        "high": max(heights),
        "end": heights[-1],
        "svgBytes": len(svg),
        "sha256": hashlib.sha256(svg.encode()).hexdigest(),
    }


def sequence_of(length):
    letters = []
    state = 7
    for _ in range(length):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        letters.append("ACGT"[(state >> 16) & 3])
    return "".join(letters)


def heights_of(sequence):
    heights = [0]
    height = 0
    for base in sequence:
        for step in STEPS[base]:
            height += step
            heights.append(height)
    return heights


def drawing_of(heights):
    low, high = min(heights), max(heights)
    every = max(1, -(-len(heights) // MOST_POINTS))
    points = " ".join(f"{at},{high - heights[at]}" for at in range(0, len(heights), every))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {len(heights)} {high - low}">'
        f'<polyline fill="none" stroke="black" points="{points}"/></svg>'
    )
