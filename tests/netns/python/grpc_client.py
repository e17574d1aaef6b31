"""Calls every kind of method and prints what it saw. Usage: grpc_client.py HOST:PORT"""

import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
PATIENCE = 15


def ours(metadata):
    return sorted((key, value) for key, value in metadata or () if key.startswith("x-"))


def method(kind, name):
    return getattr(channel, kind)(f"/it.Service/{name}")


def show(what, *values):
    print(what, *values, flush=True)


def failure(what, error):
    show(what, error.code(), repr(error.details()), ours(error.trailing_metadata()))


sent = (("x-mine", "v1"), ("x-mine", "v2"), ("x-raw-bin", b"\x01\x02\xfe"))
answer, call = method("unary_unary", "Unary").with_call(b"abc", metadata=sent, timeout=PATIENCE)
show("unary", answer, ours(call.initial_metadata()), ours(call.trailing_metadata()))

answer = method("unary_unary", "Large")(b"0123456789" * 150_000, timeout=PATIENCE)
show("large", len(answer), hash(answer) == hash(b"0123456789" * 300_000))

show("stream out", list(method("unary_stream", "StreamOut")(b"1000", timeout=PATIENCE)) == [b"%d" % at for at in range(1000)])
show("stream in", method("stream_unary", "StreamIn")(iter([b"a", b"b", b"c"]), timeout=PATIENCE))


def turns(answers):
    """One message at a time: the next is sent when the last was answered."""
    yield b"first"
    for at in range(5):
        answers.wait()
        answers.clear()
        yield b"turn %d" % at


def both():
    import threading

    came = threading.Event()
    said = []
    for answer in method("stream_stream", "Both")(turns(came), timeout=PATIENCE):
        said.append(answer)
        came.set()
    return said


show("both", both())

try:
    method("unary_unary", "Fail")(b"", timeout=PATIENCE)
except grpc.RpcError as error:
    failure("fail", error)
try:
    method("unary_unary", "Missing")(b"", timeout=PATIENCE)
except grpc.RpcError as error:
    failure("missing", error)
try:
    method("unary_unary", "Hang")(b"", timeout=0.4)
except grpc.RpcError as error:
    show("deadline", error.code())
show("server saw its end", method("unary_unary", "WasCancelled")(b"", timeout=PATIENCE))

held = method("stream_stream", "Both")(iter(lambda: b"again", None), timeout=PATIENCE)
next(held)
held.cancel()
try:
    for _ in held:
        pass
except grpc.RpcError as error:
    show("cancelled", error.code())
