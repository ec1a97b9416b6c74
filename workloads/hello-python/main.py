"""The least a function can do: what is measured is everything around it."""


def handler(event, context):
    return {"message": "Hello, world!"}
