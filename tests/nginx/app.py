# SPDX-License-Identifier: MIT
"""An application, for uWSGI: it asks the origin the same, says who does, and hands on what comes."""
import http.client
import os

PASSED = {'HTTP_IF_NONE_MATCH': 'If-None-Match', 'HTTP_X_OWN': 'X-Own', 'CONTENT_TYPE': 'Content-Type'}
HOPS = ('content-length', 'transfer-encoding', 'connection')


def application(environ, start_response):
    ask = {name: environ[key] for key, name in PASSED.items() if environ.get(key)}
    ask.update({'Connection': 'close', 'X-Pid': str(os.getpid())})
    size = int(environ.get('CONTENT_LENGTH') or 0)
    origin = http.client.HTTPConnection(environ['APP_ORIGIN'])
    origin.request(environ['REQUEST_METHOD'], environ['REQUEST_URI'],
                   environ['wsgi.input'].read(size) if size else None, ask)
    answer = origin.getresponse()
    body = answer.read()
    origin.close()
    start_response(f'{answer.status} {answer.reason}',
                   [(k, v) for k, v in answer.getheaders() if k.lower() not in HOPS])
    return [body]
