"""A network driver with bridges of its own, in the network namespace that it is
started in. Usage: plugin.py SOCKET"""
import http.server
import json
import os
import socketserver
import subprocess
import sys

networks = {}


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


def there(name):
    return os.path.exists("/proc/sys/net/ipv6/conf/" + name)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            answer, status = getattr(self, self.path.rsplit(".", 1)[-1])(json.loads(raw or b"null")), 200
        except AttributeError:
            answer, status = {"Err": "unknown call"}, 404
        except Exception as e:
            answer, status = {"Err": str(e) + str(getattr(e, "stderr", ""))}, 500
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
        return {"Implements": ["NetworkDriver"]}

    def GetCapabilities(self, _):
        return {"Scope": "local"}

    def CreateNetwork(self, q):
        name = "tp" + q["NetworkID"][:8]
        networks[q["NetworkID"]] = q
        if there(name):
            return  # from an earlier life of this program
        ip("link", "add", name, "address", "02:00:00:00:00:01", "type", "bridge")
        for pool in q["IPv4Data"] + q["IPv6Data"]:
            ip("addr", "add", pool["Gateway"], "dev", name, *(["nodad"] if ":" in pool["Gateway"] else []))
        ip("link", "set", name, "up")

    def DeleteNetwork(self, q):
        networks.pop(q["NetworkID"], None)
        name = "tp" + q["NetworkID"][:8]
        if there(name):
            ip("link", "del", name)

    def CreateEndpoint(self, q):
        networks[q["NetworkID"]]  # or it is refused
        near, far, mac = "tpn" + q["EndpointID"][:8], "tpf" + q["EndpointID"][:8], "02:00:00:00:%s:0%%d" % q["EndpointID"][:2]
        ip("link", "add", near, "address", mac % 1, "type", "veth", "peer", "name", far, "address", mac % 2)
        ip("link", "set", near, "master", "tp" + q["NetworkID"][:8], "up")
        return {"Interface": {}}

    def DeleteEndpoint(self, q):
        if there("tpn" + q["EndpointID"][:8]):
            ip("link", "del", "tpn" + q["EndpointID"][:8])

    def Join(self, q):
        answer = {"InterfaceName": {"SrcName": "tpf" + q["EndpointID"][:8], "DstPrefix": "eth"}}
        answer["StaticRoutes"] = [
            {"Destination": "10.90.0.0/24", "RouteType": 1},
            {"Destination": "10.91.0.0/24", "RouteType": 0, "NextHop": "10.90.0.7"},
        ]
        for key, pools in ("Gateway", "IPv4Data"), ("GatewayIPv6", "IPv6Data"):
            for pool in networks[q["NetworkID"]][pools]:
                answer[key] = pool["Gateway"].split("/")[0]
        return answer

    def Leave(self, q):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64


if os.path.exists(sys.argv[1]):
    os.unlink(sys.argv[1])
Server(sys.argv[1], Handler).serve_forever()
