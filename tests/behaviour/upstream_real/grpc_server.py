"""A gRPC server with its library's health service, behind TLS.

    grpc_server.py PORT CERTIFICATE KEY [bare]

Each line on standard input sets a status: `orders.v1.Orders NOT_SERVING`. With `bare` there is no health service.
"""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

port, certificate, key = sys.argv[1:4]
server = grpc.server(futures.ThreadPoolExecutor(4))
servicer = health.HealthServicer()
if "bare" not in sys.argv:
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
servicer.set("orders.v1.Orders", health_pb2.HealthCheckResponse.SERVING)
with open(key, "rb") as key_file, open(certificate, "rb") as certificate_file:
    pair = (key_file.read(), certificate_file.read())
server.add_secure_port(f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair]))
server.start()
for line in sys.stdin:
    service, status = line.split()
    servicer.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
