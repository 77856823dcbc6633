# SPDX-License-Identifier: MIT
"""Four workers that want the same user at once; one of them asks the backend.

    BACKEND=http://localhost:8001 gunicorn --preload --workers 4 gunicorn_app:app
"""
import json
import os
import urllib.request

import shoal


@shoal.cached(fresh=30, stale=300, stale_error=3600)
def user(number):
    asks = {'User-Agent': f'worker/{os.getpid()}'}
    with urllib.request.urlopen(urllib.request.Request(f'{os.environ["BACKEND"]}/users/{number}', headers=asks)) as row:
        return json.load(row)


def app(environ, start_response):
    try:
        body, status = user(int(environ['PATH_INFO'].strip('/'))), '200 OK'
    except (OSError, shoal.Error) as error:
        body, status = {'error': str(error)}, '503 Service Unavailable'
    start_response(status, [('Content-Type', 'application/json'), ('X-Worker', str(os.getpid()))])
    return [json.dumps(body).encode()]
