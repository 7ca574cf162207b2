"""The shop's web server: GET / returns who answered and what is in stock."""

import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2


class Database:
    """One connection for all requests, made anew when it is lost."""

    PATIENCE = 20  # seconds for which a question waits for a database that restarts

    def __init__(self, address):
        self.address = address
        self.lock = threading.Lock()
        self.connection = None

    def rows(self, question):
        deadline = time.monotonic() + self.PATIENCE
        while True:
            try:
                with self.lock:
                    return self.ask(question)
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                if time.monotonic() > deadline:
                    raise
                print("database:", str(error).strip().splitlines()[0], flush=True)
            time.sleep(0.2)

    def ask(self, question):
        if self.connection is None:
            self.connection = psycopg2.connect(self.address, connect_timeout=2)
            self.connection.autocommit = True
            print("database: connected", flush=True)
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(question)
                return cursor.fetchall()
        except psycopg2.Error:
            self.connection.close()
            self.connection = None
            raise


database = Database(os.environ["DATABASE"])


def products():
    rows = database.rows("SELECT name, stock FROM product ORDER BY id")
    return [{"name": name, "stock": stock} for name, stock in rows]


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
