"""Servers of the standard library and their clients, each in a thread."""

import http.client
import http.server
import json
import socket
import socketserver
import threading
import urllib.error
import urllib.parse
import urllib.request
import xmlrpc.client
import xmlrpc.server


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(404 if "missing" in self.path else 200, self.path.encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, json.dumps({"length": len(body), "type": self.headers["Content-Type"]}).encode())

    def log_message(self, *_):
        pass


def started(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    return server, thread


def stopped(server, thread):
    server.shutdown()
    server.server_close()
    thread.join()


web = started(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
base = f"http://127.0.0.1:{web[0].server_port}"
with urllib.request.urlopen(f"{base}/a?{urllib.parse.urlencode({'q': 'é &'})}") as answer:
    print(answer.status, answer.read())
request = urllib.request.Request(f"{base}/b", data=b"y" * 1_000_000, headers={"Content-Type": "text/plain"})
with urllib.request.urlopen(request) as answer:
    print(json.load(answer))
try:
    urllib.request.urlopen(f"{base}/missing")
except urllib.error.HTTPError as error:
    print(error.code, error.read())
connection = http.client.HTTPConnection("127.0.0.1", web[0].server_port)
for i in range(3):
    connection.request("GET", f"/kept/{i}")
    print(connection.getresponse().read())
connection.close()
results = []
threads = [threading.Thread(target=lambda i=i: results.append(urllib.request.urlopen(f"{base}/{i}").read())) for i in range(30)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print(len(set(results)))
stopped(*web)
try:
    urllib.request.urlopen(base)
except urllib.error.URLError as error:
    print(error.reason.__class__.__name__)


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line[::-1])


class Datagram(socketserver.BaseRequestHandler):
    def handle(self):
        data, responder = self.request
        responder.sendto(data[::-1], self.client_address)


class UnixThreads(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    pass


tcp = started(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo))
with socket.create_connection(tcp[0].server_address) as client:
    client.sendall(b"one\ntwo\n")
    client.shutdown(socket.SHUT_WR)
    print(client.makefile("rb").read())
stopped(*tcp)
unix = started(UnixThreads("/tmp/served.sock", Echo))
with socket.socket(socket.AF_UNIX) as client:
    client.connect("/tmp/served.sock")
    client.sendall(b"unix\n")
    client.shutdown(socket.SHUT_WR)
    print(client.makefile("rb").read())
stopped(*unix)
udp = started(socketserver.UDPServer(("127.0.0.1", 0), Datagram))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(60)
    client.sendto(b"datagram", udp[0].server_address)
    print(client.recv(100))
stopped(*udp)
rpc = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False)
rpc.register_function(lambda a, b: {"sum": a + b}, "add")
rpc = started(rpc)
with xmlrpc.client.ServerProxy(f"http://127.0.0.1:{rpc[0].server_address[1]}") as proxy:
    print(proxy.add(2, 3))
stopped(*rpc)
