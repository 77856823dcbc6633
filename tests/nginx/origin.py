#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""An origin that counts. It prints its port, serves what the query asks for, and ends with its standard input. Given a
FOLDER with a certificate and its key it has a second port, for TLS.

  /PATH?h=Name:Value  a header, any number of them      status=N    200
       size=N         bytes of the body, 64             chunked     without a length
       gate=NAME      the answer waits for the gate     body-gate=NAME   its second half does
       bare           the body alone, by HTTP/0.9       early        103 before it, and it closes
       truncate       half of the body, then it closes  etag=TAG    and 304 to If-None-Match
  The body says, over and over, its path and which request of that path it answers: "PATH n|", so any piece of it tells.

  /:count?PATH      requests that came for it          /:open?NAME  open a gate; /:shut?NAME
  /:await?NAME&N    wait until N are at the gate       /:last?PATH  the headers of the last request for it, as they came
  /:down, /:up      every other path: the connection is closed without an answer
"""
import asyncio
import ssl
import sys
import urllib.parse

counts, last, gates, down = {}, {}, {}, False


class Gate:
    def __init__(self):
        self.event, self.waiting, self.news = asyncio.Event(), 0, asyncio.Condition()

    async def wait(self):
        async with self.news:
            self.waiting += 1
            self.news.notify_all()
        await self.event.wait()

    async def gather(self, n):
        async with self.news:
            await self.news.wait_for(lambda: self.waiting >= n)


def gate(name):
    return gates.setdefault(name, Gate())


def body_of(path, n, size):
    line = f'{path} {n}|'.encode()
    return (line * (size // len(line) + 1))[:size]


async def control(path, query):
    global down
    if path == '/:count':
        return str(counts.get(query, 0))
    if path == '/:last':
        return last.get(query, '')
    if path == '/:open':
        gate(query).event.set()
    elif path == '/:shut':
        gate(query).event.clear()
    elif path == '/:await':
        name, n = query.split('&')
        await gate(name).gather(int(n))
    elif path in ('/:down', '/:up'):
        down = path == '/:down'
    return 'ok'


async def respond(writer, method, path, query, headers):
    n = counts[path]
    asked = urllib.parse.parse_qs(query, keep_blank_values=True)

    def first(name, default=None):
        return asked.get(name, [default])[0]

    if 'gate' in asked:
        await gate(first('gate')).wait()
    status, size = int(first('status', '200')), int(first('size', '64'))
    extra = [h.replace(':', ': ', 1) for h in asked.get('h', [])]
    closes = headers.get('connection') == 'close' or 'early' in asked
    if closes:  # said, or who asks next writes into a connection that is about to close
        extra.append('Connection: close')
    if 'etag' in asked:
        extra.append(f'ETag: "{first("etag")}"')
        if headers.get('if-none-match') == f'"{first("etag")}"':
            status, size = 304, 0
    body = b'' if status in (204, 304) else body_of(path, n, size)
    chunked = 'chunked' in asked
    if status not in (204, 304):
        extra.append('Transfer-Encoding: chunked' if chunked else f'Content-Length: {len(body)}')
    if not any(h.lower().startswith('content-type:') for h in extra):
        extra.append('Content-Type: text/plain')
    if 'bare' in asked:
        writer.write(body)
        await writer.drain()
        return False
    if 'early' in asked:
        writer.write(b'HTTP/1.1 103 Early Hints\r\nLink: </early>\r\n\r\n')
    writer.write(f'HTTP/1.1 {status} Status\r\n'.encode() + ''.join(h + '\r\n' for h in extra).encode() + b'\r\n')
    if method == 'HEAD':
        return not closes
    half = len(body) // 2
    for i, part in enumerate((body[:half], body[half:])):
        if i and 'body-gate' in asked:
            await writer.drain()
            await gate(first('body-gate')).wait()
        if i and 'truncate' in asked:
            return False
        for at in range(0, len(part), 16384):
            piece = part[at:at + 16384]
            writer.write(f'{len(piece):x}\r\n'.encode() + piece + b'\r\n' if chunked else piece)
            await writer.drain()
    if chunked:
        writer.write(b'0\r\n\r\n')
    await writer.drain()
    return not closes


async def one(reader, writer):
    head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1')
    lines = head.split('\r\n')
    method, target, _ = lines[0].split(' ')
    headers = {k.strip().lower(): v.strip() for k, _, v in (h.partition(':') for h in lines[1:] if h)}
    length = int(headers.get('content-length', '0'))
    posted = await reader.readexactly(length) if length else b''
    path, _, query = target.partition('?')
    if path.startswith('/:'):
        text = (await control(path, query)).encode()
        writer.write(f'HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\n\r\n'.encode() + text)
        await writer.drain()
        return True
    counts[path] = counts.get(path, 0) + 1
    last[path] = head + posted.decode('latin-1')
    if down:
        return False
    return await respond(writer, method, path, query, headers)


async def serve(reader, writer):
    try:
        while await one(reader, writer):
            pass
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main():
    servers = [await asyncio.start_server(serve, '127.0.0.1', 0, backlog=1024)]
    if len(sys.argv) > 1:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(f'{sys.argv[1]}/certificate', f'{sys.argv[1]}/key')
        servers.append(await asyncio.start_server(serve, '127.0.0.1', 0, backlog=1024, ssl=context))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


asyncio.run(main())
