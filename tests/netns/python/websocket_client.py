"""Says all kinds of messages and prints what came back. Usage: websocket_client.py URL"""

import asyncio
import sys

import websockets


async def main():
    async with websockets.connect(sys.argv[1], max_size=None) as connection:
        await connection.send("hello \u00e9")
        print(await connection.recv())
        large = bytes(range(256)) * 8192
        await connection.send(large)
        print(await connection.recv() == large)
        for at in range(100):
            await connection.send(f"{at}")
        print([await connection.recv() for _ in range(100)] == [f"{at}" for at in range(100)])
        await asyncio.wait_for(await connection.ping(), 10)
        await connection.send("close")
        try:
            await connection.recv()
        except websockets.ConnectionClosed as error:
            print(error.rcvd.code, error.rcvd.reason)


asyncio.run(asyncio.wait_for(main(), 20))
