"""Echoes, then closes when told. Usage: websocket_server.py PORT"""

import asyncio
import sys

import websockets


async def echo(connection):
    async for message in connection:
        if message == "close":
            await connection.close(4001, "as you wish")
            return
        await connection.send(message)


async def main():
    async with websockets.serve(echo, "", int(sys.argv[1]), max_size=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
