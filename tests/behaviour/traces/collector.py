"""A collector that speaks OTLP over HTTP, by OpenTelemetry's own protobuf classes.

    collector.py PORT

Says "ready", then one line of JSON for each request that it got: the path, the content type, the status that it gave
and the message. What it is to answer it reads from its input, a line each: a status, or "silent".
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

answer = "200"


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mode = answer
        message = service.ExportTraceServiceRequest()
        message.ParseFromString(body)
        # Whatever it does not know would be a mistake of the sender's.
        assert message.SerializeToString(deterministic=True), "an empty message"
        said = {
            "path": self.path,
            "type": self.headers["Content-Type"],
            "answer": mode,
            "message": json_format.MessageToDict(message),
        }
        print(json.dumps(said), flush=True)
        if mode == "silent":
            time.sleep(3600)
        reply = service.ExportTraceServiceResponse()
        if mode == "partial":
            reply.partial_success.rejected_spans = 1
            reply.partial_success.error_message = "one too many"
        encoded = reply.SerializeToString()
        self.send_response(200 if mode == "partial" else int(mode))
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, *_):
        pass


def obey():
    global answer
    for line in sys.stdin:
        answer = line.strip()
        print(json.dumps({"now": answer}), flush=True)


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Collector)
server.daemon_threads = True
threading.Thread(target=obey, daemon=True).start()
print(json.dumps({"ready": True}), flush=True)
server.serve_forever()
