"""Packs a text and unpacks it again. The same text as ../compression."""

import gzip
import hashlib

# Lines of the text that is packed, some 50 bytes each.
SIZES = {"small": 1000, "medium": 40_000, "large": 400_000}


def handler(event, context):
    size = (event.get("queryStringParameters") or {}).get("size") or event.get("size") or "small"
    if size not in SIZES:
        return {"statusCode": 400, "body": "size is small, medium or large"}
    plain = "".join(map(line_of, range(SIZES[size]))).encode("latin1")
    packed = gzip.compress(plain, 6)
    again = gzip.decompress(packed)
    return {
        "bytes": len(plain),
        # How small it gets depends a little on the library's version; that it gets smaller does not.
        "packs": len(packed) * 2 < len(plain),
        "same": again == plain,
        "sha256": hashlib.sha256(again).hexdigest(),
    }


def line_of(line):
    return f"{line} GET /items/{line * 7919 % 10_007}?page={line % 13} 200 {line * 104_729 % 99_991}\n"
