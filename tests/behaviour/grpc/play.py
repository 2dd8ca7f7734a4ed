"""One play: servers and a client of grpcio, with Evener between them.

    play.py NAME SERVERS    prints `ports P…`, is told Evener's address, plays, and says `done`

Messages are bytes, so nothing has to be generated. Where a play needs Evener's side port, or a signal, it
prints `pause WHAT` and waits for a line.
"""

import queue
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc

# As long as anything may take on a machine under load.
PATIENCE = 60

MIB = 1024 * 1024
OPTIONS = [("grpc.max_receive_message_length", 64 * MIB), ("grpc.max_send_message_length", 64 * MIB)]


class Server:
    """Answers on a port of its own, and remembers what was cancelled."""

    def __init__(self, port=0):
        self.calls = 0
        self.hanging = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.server = grpc.server(
            futures.ThreadPoolExecutor(64), options=OPTIONS + [("grpc.so_reuseport", 0)]
        )
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
        self.server.add_generic_rpc_handlers([
            grpc.method_handlers_generic_handler("play.Play", {
                "Echo": unary(self.echo),
                "Who": unary(self.who),
                "Left": unary(self.left),
                "Fail": unary(self.fail),
                "Hang": unary(self.hang),
                "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
                "Refuse": grpc.stream_unary_rpc_method_handler(self.refuse),
                "Count": grpc.unary_stream_rpc_method_handler(self.count),
                "FailLate": grpc.unary_stream_rpc_method_handler(self.fail_late),
                "Chat": stream(self.chat),
                "Grow": stream(self.grow),
            }),
            grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
                "Check": unary(lambda request, context: b"\x08\x01"),
            }),
        ])
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()

    def echo(self, request, context):
        self.calls += 1
        given = [(k, v) for k, v in context.invocation_metadata() if k.startswith("x-own")]
        context.send_initial_metadata(given)
        context.set_trailing_metadata([("x-late", "1"), ("x-late-bin", b"\x00\xff,\n")])
        return request

    def who(self, request, context):
        self.calls += 1
        return str(self.port).encode()

    def left(self, request, context):
        return repr(context.time_remaining()).encode()

    def fail(self, request, context):
        context.set_trailing_metadata([("x-why-bin", b"\x01\x02")])
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 100 % ä\n")

    def hang(self, request, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        self.hanging.release()
        gone.wait(PATIENCE)
        self.cancelled.release()
        return b""

    def collect(self, requests, context):
        return str(sum(len(request) for request in requests)).encode()

    def refuse(self, requests, context):
        next(requests)
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "enough")

    def count(self, request, context):
        for number in range(int(request)):
            yield str(number).encode()

    def fail_late(self, request, context):
        yield b"one"
        yield b"two"
        context.abort(grpc.StatusCode.DATA_LOSS, "the rest is gone")

    def chat(self, requests, context):
        for request in requests:
            if request == b"hang":
                self.hang(request, context)
            yield str(self.port).encode() if request == b"who" else request

    def grow(self, requests, context):
        """A lot of answer for each bit of question."""
        for request in requests:
            yield bytes(MIB)


class Client:
    """One channel, which is one connection."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=OPTIONS)

    def unary(self, method):
        return self.channel.unary_unary(f"/play.Play/{method}")

    def chat(self, **more):
        return Chat(self.channel.stream_stream("/play.Play/Chat"), **more)


class Chat:
    """A stream in both directions."""

    def __init__(self, method, **more):
        self.questions = queue.Queue()
        self.answers = method(iter(self.questions.get, None), **more)

    def ask(self, question):
        self.questions.put(question)
        return next(self.answers)

    def end(self):
        self.questions.put(None)
        assert next(self.answers, None) is None
        assert self.answers.code() == grpc.StatusCode.OK, self.answers


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it did not fail")


def expect(error, code, details=None):
    assert error.code() == code, error
    assert details is None or error.details() == details, error


def pause(what):
    say("pause", what)
    assert sys.stdin.readline()


def say(*words):
    print(*words, flush=True)


# Plays ----------------------------------------------------------------------------------------------------


def every_kind(client, servers):
    echo = client.unary("Echo")
    for message in [b"", b"hello", bytes(range(256)) * 100]:
        assert echo(message, timeout=PATIENCE) == message
    assert echo(b"z" * 100_000, timeout=PATIENCE, compression=grpc.Compression.Gzip) == b"z" * 100_000
    collect = client.channel.stream_unary("/play.Play/Collect")
    assert collect(iter([b"abc"] * 1000), timeout=PATIENCE) == b"3000"
    assert collect(iter([]), timeout=PATIENCE) == b"0"
    count = client.channel.unary_stream("/play.Play/Count")
    assert [int(number) for number in count(b"1000", timeout=PATIENCE)] == list(range(1000))
    assert list(count(b"0", timeout=PATIENCE)) == []
    chat = client.channel.stream_stream("/play.Play/Chat")
    assert list(chat(iter([b"x", b"y"] * 100), timeout=PATIENCE)) == [b"x", b"y"] * 100


def large(client, servers):
    message = bytes(range(256)) * (8 * MIB // 256)
    assert client.unary("Echo")(message, timeout=PATIENCE) == message
    chat = client.chat(timeout=PATIENCE)
    for _ in range(3):
        assert chat.ask(message) == message
    chat.end()


def metadata(client, servers):
    given = [("x-own", "plain"), ("x-own-bin", b"\x00\xff\xfe,\n"), ("x-own-bin", b""), ("x-own-two", "a, b")]
    _, call = client.unary("Echo").with_call(b"", metadata=given, timeout=PATIENCE)
    got = [(k, v) for k, v in call.initial_metadata() if k.startswith("x-own")]
    assert sorted(map(repr, got)) == sorted(map(repr, given)), got
    late = dict(call.trailing_metadata())
    assert late["x-late"] == "1" and late["x-late-bin"] == b"\x00\xff,\n", late


def errors(client, servers):
    error = failure(lambda: client.unary("Fail")(b"", timeout=PATIENCE))
    expect(error, grpc.StatusCode.NOT_FOUND, "no such thing: 100 % ä\n")
    assert dict(error.trailing_metadata())["x-why-bin"] == b"\x01\x02"
    expect(failure(lambda: client.unary("Nobody")(b"", timeout=PATIENCE)), grpc.StatusCode.UNIMPLEMENTED)
    got = []
    late = client.channel.unary_stream("/play.Play/FailLate")(b"", timeout=PATIENCE)
    expect(failure(lambda: [got.append(one) for one in late]), grpc.StatusCode.DATA_LOSS, "the rest is gone")
    assert got == [b"one", b"two"]
    # The answer is there before the question is complete.
    questions = queue.Queue()
    questions.put(b"first")
    refuse = client.channel.stream_unary("/play.Play/Refuse")
    error = failure(lambda: refuse(iter(questions.get, None), timeout=PATIENCE))
    questions.put(None)
    expect(error, grpc.StatusCode.PERMISSION_DENIED, "enough")


def ping_pong(client, servers):
    chat = client.chat(timeout=PATIENCE)
    for number in range(300):
        assert chat.ask(str(number).encode()) == str(number).encode()
    chat.end()


def uneven(client, servers):
    """Many questions at once, and a lot of answer to each."""
    grow = client.channel.stream_stream("/play.Play/Grow")
    answers = grow(iter([bytes(16 * 1024)] * 64), timeout=PATIENCE)
    assert sum(len(answer) for answer in answers) == 64 * MIB


def deadlines(client, servers):
    left = float(client.unary("Left")(b"", timeout=30))
    assert 0 < left <= 30, left
    # Who says nothing has no deadline.
    assert float(client.unary("Left")(b"")) > 1e6
    error = failure(lambda: client.unary("Hang")(b"", timeout=1))
    expect(error, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert servers[0].cancelled.acquire(timeout=PATIENCE)


def cancellation(client, servers):
    call = client.unary("Hang").future(b"")
    assert servers[0].hanging.acquire(timeout=PATIENCE)
    pause("one in flight")
    call.cancel()
    assert servers[0].cancelled.acquire(timeout=PATIENCE)
    chat = client.chat()
    chat.ask(b"x")
    chat.questions.put(b"hang")
    assert servers[0].hanging.acquire(timeout=PATIENCE)
    chat.answers.cancel()
    assert servers[0].cancelled.acquire(timeout=PATIENCE)
    chat.questions.put(None)
    pause("none in flight")


def balance(client, servers):
    who = client.unary("Who")
    for _ in range(30):
        who(b"", timeout=PATIENCE)
    assert [server.calls for server in servers] == [10] * len(servers), [s.calls for s in servers]


def spread(client, servers):
    chats = [client.chat() for _ in range(9)]
    ports = [chat.ask(b"who") for chat in chats]
    assert sorted(ports.count(port) for port in set(ports)) == [3, 3, 3], ports
    for chat in chats:
        chat.end()


def all_well(client, servers):
    for _ in range(40):
        client.unary("Who")(b"", timeout=PATIENCE)


def is_killed(client, servers):
    """A server of another process dies in the middle of a stream."""
    port = servers[0].port
    servers[0].server.stop(None).wait()
    other = subprocess.Popen([sys.executable, __file__, "serve", str(port)], stdout=subprocess.PIPE)
    assert other.stdout.readline()
    chat = client.chat(wait_for_ready=True)
    chat.ask(b"x")
    other.kill()
    other.wait()
    error = failure(lambda: next(chat.answers))
    chat.questions.put(None)
    expect(error, grpc.StatusCode.UNAVAILABLE, "the service broke off before it answered")


def survives(client, servers):
    """Something happens in the middle of a stream, which does not notice."""
    chat = client.chat()
    for step in ["before", "after"]:
        assert chat.ask(step.encode()) == step.encode()
        if step == "before":
            pause("disturb")
    chat.end()


def silence(client, servers):
    """Longer than what is configured for others, before the first message and after."""
    chat = client.chat()
    for word in [b"one", b"two"]:
        time.sleep(3)
        assert chat.ask(word) == word
    chat.end()


def refusals(client, servers):
    """As the configuration has it; see the play."""
    for path, code, details in [
        ("/nowhere.At/All", grpc.StatusCode.UNIMPLEMENTED, "no route matches this host and path"),
        ("/empty.Pool/Call", grpc.StatusCode.UNAVAILABLE, "the service is not available at the moment"),
        ("/dead.Pool/Call", grpc.StatusCode.UNAVAILABLE, "the service could not be reached"),
        ("/old.Pool/Call", grpc.StatusCode.UNIMPLEMENTED,
         "gRPC needs HTTP/2 all the way, which is not spoken here"),
    ]:
        expect(failure(lambda: client.channel.unary_unary(path)(b"", timeout=PATIENCE)), code, details)
    error = failure(lambda: client.unary("Echo")(bytes(100_000), timeout=PATIENCE))
    expect(error, grpc.StatusCode.RESOURCE_EXHAUSTED, "the request body is too large")
    assert dict(error.initial_metadata() or error.trailing_metadata())["x-request-id"]
    assert client.unary("Echo")(b"small", timeout=PATIENCE) == b"small"


def main(name, count):
    servers = [Server() for _ in range(int(count))]
    say("ports", *[server.port for server in servers])
    address = sys.stdin.readline().strip()
    client = Client(address)
    globals()[name](client, servers)
    client.channel.close()
    say("done")


if sys.argv[1] == "serve":
    server = Server(int(sys.argv[2]))
    say("ready")
    server.server.wait_for_termination()
else:
    main(*sys.argv[1:])
