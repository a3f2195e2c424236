"""Show the built pages at http://localhost:PORT; what `make serve` runs."""

import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main(port, pages=Path("_build/html")):
    if not (pages / "index.html").is_file():
        sys.exit("There is no book yet: make book")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        sys.exit(f"PORT is {port!r}; it may be a whole number from 1 to 65535: make serve PORT=8001")
    try:
        server = ThreadingHTTPServer(("127.0.0.1", int(port)), partial(SimpleHTTPRequestHandler, directory=str(pages)))
    except OSError as problem:
        sys.exit(f"Port {port} cannot be used ({problem.strerror}). Name another: make serve PORT={'8001' if port != '8001' else '8002'}")
    print(f"http://localhost:{port}   (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main(sys.argv[1])
