"""The shop's web server: GET / returns who answered and what is in stock."""

import json
import os
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

DATABASE = os.environ["DATABASE"] + " connect_timeout=2"
PATIENCE = 20  # seconds for which a request waits for a database that starts


def products():
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection = psycopg2.connect(DATABASE)
            break
        except psycopg2.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name, stock FROM product ORDER BY id")
            return [{"name": name, "stock": stock} for name, stock in cursor]
    finally:
        connection.close()


class Shop(BaseHTTPRequestHandler):
    wbufsize = -1  # one write for headers and body: a health check reads no more than that

    def do_GET(self):
        if self.path == "/health":
            self.answer(200, {"ok": True})
        elif self.path != "/":
            self.answer(404, {"error": "no such page"})
        else:
            try:
                self.answer(200, {"server": socket.gethostname(), "products": products()})
            except psycopg2.Error as error:
                self.answer(503, {"error": str(error).strip()})

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        if self.path != "/health":
            print(self.headers.get("X-Forwarded-For", self.client_address[0]), format % args, flush=True)


if __name__ == "__main__":
    ThreadingHTTPServer(("", 80), Shop).serve_forever()
