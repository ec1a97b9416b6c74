"""A page with a table, made of templates; every value is escaped. The same page as ../dynamic-html."""

from html import escape

# Rows of the table that is rendered.
SIZES = {"small": 10, "medium": 1000, "large": 20_000}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Order of {user}</title></head>
<body><h1>Hello, {user}</h1><table>
{table}
</table><p>{count} items, {total} in all</p></body></html>
"""


def handler(event, context):
    size = (event.get("queryStringParameters") or {}).get("size") or event.get("size") or "small"
    if size not in SIZES:
        return {"statusCode": 400, "body": "size is small, medium or large"}
    rows = [row_of(index) for index in range(SIZES[size])]
    body = PAGE.format(
        user=escape('Ada "Countess" <Lovelace>'),
        table="\n".join(map(row, rows)),
        count=len(rows),
        total=sum(price for _, price, _ in rows),
    )
    return {"statusCode": 200, "headers": {"content-type": "text/html; charset=utf-8"}, "body": body}


def row_of(index):
    tags = [tag for at, tag in enumerate(("new", "sale", "a & b")) if (index >> at) % 2 == 1]
    return f"Item {index} <{index % 7}>", index * 7919 % 1000, tags


def row(values):
    name, price, tags = values
    dear = ' class="dear"' if price > 500 else ""
    words = " ".join(f"<em>{escape(tag)}</em>" for tag in tags)
    return f"<tr{dear}><td>{escape(name)}</td><td>{price}</td><td>{words}</td></tr>"
