"""A gRPC server with the health servicer of grpcio, and one without.

Arguments: the two ports, 0 for any. Prints them; then sets what it reads, as `service STATUS`, and prints `set`.
"""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


def start(port, servicer):
    # Without SO_REUSEPORT a port that is taken is an error.
    options = [("grpc.so_reuseport", 0)]
    server = grpc.server(futures.ThreadPoolExecutor(4), options=options)
    if servicer is not None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, bound


servicer = health.HealthServicer()
with_health, first = start(sys.argv[1], servicer)
without, second = start(sys.argv[2], None)
print(f"ports {first} {second}", flush=True)
for line in sys.stdin:
    service, status = line.split()
    status = health_pb2.HealthCheckResponse.ServingStatus.Value(status)
    servicer.set("" if service == "-" else service, status)
    print("set", flush=True)
