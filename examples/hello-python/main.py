"""The smallest Python function: an event in, a value that JSON can hold out."""


def handler(event, context):
    # Over HTTP the event is a Lambda function-URL event; by the invocations API it is whatever JSON was sent.
    event = event if isinstance(event, dict) else {}
    parameters = event.get("queryStringParameters") or {}
    name = event.get("name") or parameters.get("name") or "world"
    print(f"greeting {name}")
    return {"message": f"Hello, {name}!", "runtime": "python3", "invocation": context.invocation_id}
