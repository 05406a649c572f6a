"""What only the real server shows: connections that go on after a response."""

import asyncio

from chassis.web.serving import listening_socket, serve


async def test_the_connection_of_a_head_request_takes_the_next_request(app, token):
    listening, stopping = listening_socket("127.0.0.1", 0), asyncio.Event()
    port = listening.getsockname()[1]
    serving = asyncio.create_task(serve(app, listening, stopping))
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for method, status in (("HEAD", b"200"), ("HEAD", b"200"), ("OPTIONS", b"204"), ("GET", b"200")):
            writer.write(
                f"{method} /boxes HTTP/1.1\r\nHost: boxes\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
            )
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert head.startswith(b"HTTP/1.1 " + status), head
        writer.close()
    finally:
        stopping.set()
        await serving
