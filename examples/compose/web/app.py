"""The stock list's web server: GET / tells who answers, what is in stock, and
whether PostgreSQL or memcached has said so."""

import json
import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2


def cache(*lines):
    """Sends a command of memcached's text protocol, and returns the answer's lines."""
    host, port = os.environ["CACHE"].split(":")
    with socket.create_connection((host, int(port)), timeout=2) as connection:
        connection.sendall("".join(line + "\r\n" for line in lines + ("quit",)).encode())
        return connection.makefile().read().splitlines()


def products():
    """The list as text and where it is from; what the database says is cached."""
    answer = cache("get products")
    if answer[0].startswith("VALUE"):
        return answer[1], "memcached"
    with open("/run/secrets/db-password") as f:
        password = f.read().strip()
    connection = psycopg2.connect(os.environ["DATABASE"], password=password, connect_timeout=2)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT json_object_agg(name, stock ORDER BY name) FROM product")
            text = json.dumps(cursor.fetchone()[0])
    finally:
        connection.close()
    cache("set products 0 0 %d" % len(text), text)
    return text, "postgresql"


class Web(BaseHTTPRequestHandler):
    wbufsize = -1  # one write for headers and body: a health check reads no more than that

    def do_GET(self):
        if self.path == "/health":
            return self.answer(200, {"ok": True})
        try:
            text, source = products()
        except (OSError, psycopg2.Error) as error:
            return self.answer(503, {"error": str(error).strip()})
        self.answer(200, {"server": socket.gethostname(), "greeting": os.environ["GREETING"],
                          "from": source, "products": json.loads(text)})

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        if self.path != "/health":
            print(self.client_address[0], format % args, flush=True)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 8000), Web).serve_forever()
