"""A server and clients of the `websockets` package, with Evener in between.

Usage: conversation.py PORT_OF_THE_SERVER ADDRESS_OF_EVENER
"""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

PORT, EVENER = int(sys.argv[1]), sys.argv[2]
LARGEST = 8 * 1024 * 1024
seen = {}


async def echo(socket):
    path = socket.request.path
    seen[path] = socket
    if path == "/goodbye":
        return await socket.close(4321, "enough")
    async for message in socket:
        await socket.send(message)


def refuse(connection, request):
    if request.path == "/refused":
        return connection.respond(403, "not here\n")


async def messages_of_every_size(**settings):
    async with connect(f"ws://{EVENER}/echo", max_size=LARGEST, **settings) as socket:
        for size in [0, 1, 125, 126, 127, 65535, 65536, 1_000_000, LARGEST]:
            for message in ["x" * size, bytes(range(256)) * (size // 256) + b"y" * (size % 256)]:
                await socket.send(message)
                assert await socket.recv() == message, size
        return socket


async def compression_is_agreed_on_end_to_end():
    socket = await messages_of_every_size(compression="deflate")
    names = lambda one: [type(extension).__name__ for extension in one.protocol.extensions]
    assert names(socket) == names(seen["/echo"]) == ["PerMessageDeflate"], names(socket)
    socket = await messages_of_every_size(compression=None)
    assert names(socket) == names(seen["/echo"]) == []


async def a_subprotocol_is_agreed_on():
    async with connect(f"ws://{EVENER}/chat", subprotocols=["superchat", "chat"]) as socket:
        assert socket.subprotocol == seen["/chat"].subprotocol == "chat", socket.subprotocol


async def fragments_and_pings():
    async with connect(f"ws://{EVENER}/pings") as socket:
        async def pieces():
            for piece in ["one ", "two ", "three"]:
                yield piece
                await (await socket.ping())
        await socket.send(pieces())
        assert await socket.recv() == "one two three"
        await (await seen["/pings"].ping(b"from the server"))


async def close_codes_arrive():
    async with connect(f"ws://{EVENER}/goodbye") as socket:
        try:
            await socket.recv()
            raise AssertionError("still open")
        except ConnectionClosed:
            assert (socket.close_code, socket.close_reason) == (4321, "enough")
    socket = await connect(f"ws://{EVENER}/leaving")
    await socket.close(4000, "bye")
    await seen["/leaving"].wait_closed()
    assert (seen["/leaving"].close_code, seen["/leaving"].close_reason) == (4000, "bye")


async def a_refusal_is_passed_on():
    try:
        await connect(f"ws://{EVENER}/refused")
        raise AssertionError("accepted")
    except InvalidStatus as refusal:
        assert refusal.response.status_code == 403
        assert refusal.response.body == b"not here\n"


async def many_at_a_time():
    async def one(number):
        async with connect(f"ws://{EVENER}/many") as socket:
            for turn in range(20):
                await socket.send(f"{number}/{turn}")
                assert await socket.recv() == f"{number}/{turn}"
    await asyncio.gather(*(one(number) for number in range(50)))


async def main():
    choose = lambda _, offered: "chat" if "chat" in offered else None
    settings = {"max_size": LARGEST, "select_subprotocol": choose, "process_request": refuse}
    async with serve(echo, "127.0.0.1", PORT, **settings):
        for part in [
            compression_is_agreed_on_end_to_end,
            a_subprotocol_is_agreed_on,
            fragments_and_pings,
            close_codes_arrive,
            a_refusal_is_passed_on,
            many_at_a_time,
        ]:
            await part()
            print(part.__name__, "ok", flush=True)


asyncio.run(asyncio.wait_for(main(), 120))
