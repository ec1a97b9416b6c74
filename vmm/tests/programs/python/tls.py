"""TLS without certificates, in memory and over sockets."""

import hashlib
import socket
import ssl
import threading


def context(side):
    made = ssl.SSLContext(side)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.maximum_version = ssl.TLSVersion.TLSv1_2
    # Anonymous: Python cannot make a certificate.
    made.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    return made


client_context, server_context = context(ssl.PROTOCOL_TLS_CLIENT), context(ssl.PROTOCOL_TLS_SERVER)
to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
client = client_context.wrap_bio(to_client, to_server)
server = server_context.wrap_bio(to_server, to_client, server_side=True)
pending = [client, server]
while pending:
    side = pending.pop(0)
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        pending.append(side)
print(client.version(), client.cipher()[0], server.cipher()[0])
client.write(b"over memory")
print(server.read())
try:
    server.read()
except ssl.SSLWantReadError as error:
    print(error.reason)

listener = socket.create_server(("127.0.0.1", 0))
data = bytes(range(256)) * 4000


def serve():
    accepted, _ = listener.accept()
    with server_context.wrap_socket(accepted, server_side=True) as secure:
        digest = hashlib.sha256()
        while chunk := secure.recv(10_000):
            digest.update(chunk)
        secure.sendall(digest.digest())
        secure.unwrap()


thread = threading.Thread(target=serve)
thread.start()
with socket.create_connection(listener.getsockname()) as plain, client_context.wrap_socket(plain) as secure:
    secure.sendall(data)
    secure = secure.unwrap() if False else secure
    try:
        rest = secure.unwrap()
    except OSError as error:
        rest = error
    print("closed", type(rest).__name__)
thread.join()

left, right = socket.socketpair()
thread = threading.Thread(target=lambda: (right.recv(10), right.sendall(b"HTTP/1.1 400 no\r\n\r\n"), right.close()))
thread.start()
try:
    client_context.wrap_socket(left)
except ssl.SSLError as error:
    print("not TLS", error.reason)
thread.join()
print(ssl.create_default_context().cert_store_stats()["x509_ca"] >= 0, ssl.HAS_TLSv1_3, ssl.RAND_status(), len(ssl.RAND_bytes(9)))
print(len(ssl.create_default_context().get_ciphers()) > 5, ssl.OPENSSL_VERSION_INFO[0])
