"""A remote IPAM that keeps nothing over a restart: it wants a MAC with each request,
and all requests repeated. Usage: ipam.py SOCKET RECORD; RECORD always holds what is taken."""
import http.server
import ipaddress
import json
import socketserver
import sys

pools, taken = {}, {}


def record():
    with open(sys.argv[2], "w") as f:
        f.write(" ".join(sorted(list(pools) + ["%s@%s" % item for item in taken.items()])))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        request = json.loads(self.rfile.read(length) or b"{}")
        name = self.path.rsplit(".", 1)[-1]
        try:
            answer, status = getattr(self, name)(request), 200
        except Exception as e:
            answer, status = {"Error": str(e)}, 200
        record()
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "engine"

    def log_message(self, *args):
        pass

    def Activate(self, _):
        return {"Implements": ["IpamDriver"]}

    def GetCapabilities(self, _):
        return {"RequiresMACAddress": True, "RequiresRequestReplay": True}

    def GetDefaultAddressSpaces(self, _):
        return {"LocalDefaultAddressSpace": "null", "GlobalDefaultAddressSpace": "null"}

    def RequestPool(self, q):
        pool = q["Pool"] or "10.201.0.0/24"
        pools["p-" + pool] = pool
        return {"PoolID": "p-" + pool, "Pool": pool, "Data": {"com.docker.network.gateway": "10.201.0.1/24"}}

    def ReleasePool(self, q):
        del pools[q["PoolID"]]
        return {}

    def RequestAddress(self, q):
        pool = ipaddress.ip_network(pools[q["PoolID"]])
        mac = (q.get("Options") or {}).get("com.docker.network.endpoint.macaddress")
        if not mac:
            raise ValueError("no MAC address")
        wanted = q["Address"]
        if not wanted:
            wanted = next(str(a) for a in list(pool.hosts())[1:] if str(a) not in taken)
        taken[wanted] = mac
        return {"Address": "%s/%d" % (wanted, pool.prefixlen)}

    def ReleaseAddress(self, q):
        del taken[q["Address"]]
        return None


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


record()
Server(sys.argv[1], Handler).serve_forever()
