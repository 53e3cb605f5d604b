"""A TCP proxy through which everything takes longer, each way:

    python -m tests.support.slow_proxy 10.77.0.1:9805 127.0.0.1:8805 0.15

Bandwidth is not limited: pieces overtake nothing and wait for nothing but their own delay.
"""

import asyncio
import json
import sys

from geniehive.kit import address


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Every piece arrives `delay` seconds after it came, the end too."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        piece = b"-"
        while piece:
            try:
                piece = await reader.read(65536)
            except OSError:
                piece = b""
            pieces.put_nowait((loop.time() + delay, piece))

    reading = asyncio.create_task(read())
    try:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not piece:
                break
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass
    finally:
        reading.cancel()
        writer.close()


async def serve(listen: str, target: str, delay: float) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(*address.split(target))
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass(reader, there_writer, delay), _pass(there_reader, writer, delay))

    server = await asyncio.start_server(handle, *address.split(listen))
    print(json.dumps({"notice": "ready"}), flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], float(sys.argv[3])))
