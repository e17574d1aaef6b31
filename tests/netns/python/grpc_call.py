"""Calls unary methods and prints each answer or status. Usage: grpc_call.py HOST:PORT METHOD..."""

import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
for name in sys.argv[2:]:
    call = channel.unary_unary(name)
    try:
        print(name, call(b"abc", metadata=(("x-mine", "v1"),), timeout=15), flush=True)
    except grpc.RpcError as error:
        print(name, error.code().name, flush=True)
