"""A gRPC service by grpcio, without generated code. Usage: grpc_server.py PORT"""

import sys
import threading
from concurrent import futures

import grpc

cancelled = threading.Event()


def unary(request, context):
    seen = [
        f"{key}={value!r}"
        for key, value in context.invocation_metadata()
        if key.startswith("x-")
    ]
    context.send_initial_metadata((("x-first", "1"), ("x-bytes-bin", b"\x00\xff")))
    context.set_trailing_metadata((("x-last", "2"),))
    return request[::-1] + "|".join(seen).encode()


def large(request, context):
    return request * 2


def stream_out(request, context):
    for at in range(int(request)):
        yield b"%d" % at


def stream_in(requests, context):
    return b"+".join(requests)


def both(requests, context):
    for request in requests:
        yield request.upper()


def fail(request, context):
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: \u00e9")


def hang(request, context):
    context.add_callback(cancelled.set)
    cancelled.wait(30)
    return b""


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(10) else b"no"


def main():
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Large": grpc.unary_unary_rpc_method_handler(large),
        "StreamOut": grpc.unary_stream_rpc_method_handler(stream_out),
        "StreamIn": grpc.stream_unary_rpc_method_handler(stream_in),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Hang": grpc.unary_unary_rpc_method_handler(hang),
        "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    handler = grpc.method_handlers_generic_handler("it.Service", methods)
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"[::]:{sys.argv[1]}")
    server.start()
    server.wait_for_termination()


main()
