"""A collector that is not ours: takes OTLP over HTTP, decodes it by the classes of
`opentelemetry-proto`, and appends a line of JSON a span to a file; and to another,
beside it, a line a request with what was answered.

    collector.py PORT SPANS MODE

The file MODE, where there is one, says what is answered: a status, or `partial`.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

PORT, SPANS, MODE = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def known(message):
    """Every field of every part is one that the collector knows."""
    assert len(UnknownFieldSet(message)) == 0, message
    for field, value in message.ListFields():
        if field.message_type:
            for part in value if isinstance(value, list) or hasattr(value, "append") else [value]:
                known(part)


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def lines(request):
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield {
                    "resource": attributes(resource_spans.resource.attributes),
                    "scope": scope_spans.scope.name,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "flags": span.flags,
                    "name": span.name,
                    "kind": span.kind,
                    "start": span.start_time_unix_nano,
                    "end": span.end_time_unix_nano,
                    "attributes": attributes(span.attributes),
                    "events": [
                        {"name": event.name, "time": event.time_unix_nano, **attributes(event.attributes)}
                        for event in span.events
                    ],
                    "status": span.status.code,
                }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mode = open(MODE).read() if os.path.exists(MODE) else "200"
        answer = ExportTraceServiceResponse()
        assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        known(request)
        if mode == "partial":
            answer.partial_success.rejected_spans = 1
        status = 200 if mode == "partial" else int(mode)
        if status == 200:
            with open(SPANS, "a") as out:
                out.write("".join(json.dumps(line) + "\n" for line in lines(request)))
        with open(SPANS + ".answers", "a") as out:
            out.write(f"{mode}\n")
        said = answer.SerializeToString()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", PORT), Handler)
print(server.server_port, flush=True)
server.serve_forever()
