"""Rules that a schema cannot express: how the parts of a request depend on each other and on recorded data."""

import datetime
import json
import re
import uuid

import schemathesis

# The fields of integers in bodies.
AMOUNTS = (
    "amount", "initial_deposit", "expires_in_seconds", "overdraft", "per_movement", "out_per_day", "out_per_month"
)

# The position of the last command.
position = "0"


@schemathesis.serializer("application/x-ndjson")
def one_line(context, value):
    return json.dumps(value).encode()


@schemathesis.hook
def after_call(context, case, response):
    global position
    if case.method in ("POST", "PUT"):
        position = (response.headers.get("passbook-position") or [position])[0]


@schemathesis.hook
def before_call(context, case, kwargs):
    query, headers = case.query or {}, case.headers or {}
    # A position beyond the log's head would make the request wait and fail with 503.
    if re.fullmatch("[0-9:,]+", str(query.get("min_position"))):
        query["min_position"] = position
    # The event stream never ends. The test reads one event, which arrives at once if no filter skips events.
    if case.operation.path == "/v1/events/stream":
        for name, pattern in (("type", "[A-Z][A-Za-z]+"), ("since", "[0-9]{4}-.*"), ("after", "[0-9]+.*")):
            if re.fullmatch(pattern, str(query.get(name, ""))):
                del query[name]
        if str(headers.get("Last-Event-ID", ""))[:1].isdigit():
            del headers["Last-Event-ID"]
    # A request that follows a command must find the data that the command recorded.
    if case.meta is not None and case.meta.phase.name.value == "stateful":
        if str(query.get("dry_run")).lower() == "true":
            del query["dry_run"]
        if case.method == "GET" and "min_position" in case.operation.query:
            case.query = query = {**query, "min_position": query.get("min_position", position)}
    if case.meta is None or case.meta.generation.mode.is_negative:
        return
    # Cursors are opaque, and those of the log must name an existing event.
    query.pop("after", None)
    headers.pop("Last-Event-ID", None)
    # `as_of` and `as_of_version` exclude each other, `as_of` must not be later than now, and `from` not after `to`.
    if "as_of" in query:
        query.pop("as_of_version", None)
        today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT00:00:00Z")
        query["as_of"] = min(str(query["as_of"]), today)
    if "from" in query and "to" in query:
        query["from"], query["to"] = sorted([query["from"], query["to"]])
    # The least of a range is not above its greatest, and balances are of one currency.
    for least, greatest in (("min_balance", "max_balance"), ("min_amount", "max_amount")):
        if least in query and greatest in query:
            query[least], query[greatest] = sorted([query[least], query[greatest]], key=int)
    if any(name in query for name in ("sort", "min_balance", "max_balance")):
        query["currency"] = "EUR"
    # The phase `coverage` keeps a 0 from its wrong-type tests as if it were a valid header.
    for name in ("If-Match", "If-None-Match"):
        if headers.get(name) == "0":
            headers[name] = "*"
    if headers.get("Idempotency-Key") == "0":
        headers["Idempotency-Key"] = str(uuid.uuid4())
    body = case.body if isinstance(case.body, dict) else {}
    # The host of a webhook must have a public address, and its cursor must name an existing event.
    if case.operation.path == "/v1/webhooks" and "url" in body:
        body["url"] = "https://192.88.98.1/" + str(uuid.uuid4())
        body.pop("after", None)
    if case.operation.path == "/v1/webhooks/{webhook_id}/replay" and "after" in body:
        body["after"] = "0"
    if case.operation.path == "/v1/batches":
        choose_kind_of_batch(case, body, query, headers)
    commands = body.get("commands", [])
    bodies = [body, *(command for command in commands if isinstance(command, dict))]
    # Not every three letters are a currency code.
    for part in (query, *bodies):
        if isinstance(part.get("currency"), str):
            part["currency"] = "EUR"
    for part in bodies:
        # JSON Schema accepts 98.0 as an integer; the service does not.
        for name in AMOUNTS:
            if isinstance(part.get(name), float):
                part[name] = int(part[name])
        payer = part.get("from", part.get("account_id", (case.path_parameters or {}).get("account_id")))
        if "to" in part and part["to"] == payer:
            part["to"] = str(uuid.uuid4())


def choose_kind_of_batch(case, body, query, headers):
    """A key belongs to the header or to the commands, and lines of JSON have no dry run."""
    if case.media_type == "application/x-ndjson":
        query.pop("dry_run", None)
    if case.media_type == "application/x-ndjson" or body.get("mode") == "each":
        headers.pop("Idempotency-Key", None)
        return
    for command in body.get("commands", []):
        if isinstance(command, dict):
            command.pop("idempotency_key", None)
