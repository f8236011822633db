"""gRPC's own balancers at work, for the tests beside them.

peers.py COUNT SERVICE_CONFIG PLAN

Starts COUNT servers and a channel to all of them with that service config, and carries out the plan, which is a file
with a line per call: the key that it is sent with, the milliseconds to wait before it, and the numbers of the servers
that fail from then on (or "-"). Prints the ports, and for each call which server answered, "ok" or "failed", and the
milliseconds since the first call.
"""

import os

os.environ["GRPC_EXPERIMENTAL_RING_HASH_SET_REQUEST_HASH_KEY"] = "true"

import sys
import time
from concurrent import futures

import grpc

failing = set()
last = [0]


class Server(grpc.GenericRpcHandler):
    def __init__(self, number):
        self.number = number

    def service(self, _):
        return grpc.unary_unary_rpc_method_handler(self.answer)

    def answer(self, _, context):
        last[0] = self.number
        if self.number in failing:
            context.abort(grpc.StatusCode.INTERNAL, "as told")
        return b""


def main(count, config, plan):
    servers, ports = [], []
    for number in range(count):
        server = grpc.server(futures.ThreadPoolExecutor(1))
        server.add_generic_rpc_handlers((Server(number),))
        ports.append(server.add_insecure_port("127.0.0.1:0"))
        server.start()
        servers.append(server)
    print(*ports)
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    options = [("grpc.service_config", config), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(target, options=options) as channel:
        call = channel.unary_unary("/payments/charge")
        begun = time.monotonic()
        for line in open(plan, encoding="utf-8"):
            key, wait, fail = line.split()
            failing.clear()
            failing.update(int(number) for number in fail.split(",") if number != "-")
            time.sleep(int(wait) / 1e3)
            try:
                call(b"", metadata=(("x-key", key),), timeout=5)
                outcome = "ok"
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.INTERNAL:
                    raise
                outcome = "failed"
            print(last[0], outcome, int((time.monotonic() - begun) * 1e3))
    for server in servers:
        server.stop(None)


main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
