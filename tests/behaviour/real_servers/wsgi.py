"""The smallest WSGI application, for gunicorn. Each request adds a line to REQUEST_LOG; /healthz does not count.

The answer has no body: gunicorn writes head and body one after the other, and an answer that is cut between
them by `kill -9` is lost in front of any proxy, because its head has reached the client.
"""

import os

LOG = os.open(os.environ["REQUEST_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def application(environ, start_response):
    if environ["PATH_INFO"] != "/healthz":
        os.write(LOG, environ["PATH_INFO"].encode() + b"\n")
    start_response("200 OK", [("Content-Length", "0")])
    return []
