"""What a user of docker-py does, as a script that stops at the first surprise."""

import time

import docker

c = docker.from_env()
assert c.ping() and c.version()["ApiVersion"] == "1.56", c.version()

pool = docker.types.IPAMPool(subnet="10.45.0.0/24", gateway="10.45.0.1")
net = c.networks.create("pynet", ipam=docker.types.IPAMConfig(pool_configs=[pool]), labels={"a": "b"})
assert [n.name for n in c.networks.list(filters={"label": "a=b"})] == ["pynet"]
assert net.attrs["IPAM"]["Config"][0]["Subnet"] == "10.45.0.0/24", net.attrs

k = c.containers.run(
    "bb", ["sh", "-c", "echo hi; exec sleep 600"], name="py1", detach=True, network="pynet", init=True, mem_limit="64m",
    environment={"X": "y"}, labels={"l": "1"}, restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
    log_config=docker.types.LogConfig(type="json-file", config={"max-size": "1m", "max-file": "2"}),
)
k.reload()
assert k.status == "running" and k.attrs["NetworkSettings"]["Networks"]["pynet"]["IPAddress"] == "10.45.0.2", k.attrs
for line in k.logs(stream=True, follow=True):
    assert line == b"hi\n", line
    break
# docker-py loses what arrives with the answer's head: a hundred times shows it.
assert all(k.exec_run("echo x").output == b"x\n" for _ in range(100))
assert k.exec_run(["sh", "-c", "echo $X; exit 4"]) == (4, b"y\n")
assert k.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True).output == (b"o\n", b"e\n")
assert "PID" in k.top()["Titles"]
assert k.stats(stream=False)["memory_stats"]["limit"] == 64 << 20
assert next(k.stats(stream=True, decode=True))["name"] == "/py1"
k.update(mem_limit="128m", memswap_limit="128m")
k.pause()
k.reload()
assert k.status == "paused"
k.unpause()
k.rename("py2")
other = c.networks.create("pynet2", internal=True)
other.connect(k, aliases=["al"])
k.reload()
assert sorted(k.attrs["NetworkSettings"]["Networks"]) == ["pynet", "pynet2"] and k.name == "py2", k.attrs
other.disconnect(k)

assert c.containers.run("bb", "echo attached", remove=True, network="pynet") == b"attached\n"
try:
    c.containers.run("bb", "false", remove=True)
    assert False, "a failure passed for a success"
except docker.errors.ContainerError as e:
    assert e.exit_status == 1
try:
    c.containers.get("nosuch")
    assert False, "there is a container nosuch"
except docker.errors.NotFound:
    pass
for refused in (c.services.list, c.secrets.list, lambda: c.swarm.init()):
    try:
        refused()
        assert False, "a swarm"
    except docker.errors.APIError as e:
        assert e.response.status_code in (501, 503), e

k.stop(timeout=0)
assert k.wait()["StatusCode"] in (137, 143)
k.start()
k.restart(timeout=0)
k.kill()
k.wait(condition="not-running")
wanted = {"container": k.id, "event": ["create", "start", "rename", "die", "pause", "restart"]}
past = [e["Action"] for e in c.events(since=1, until=time.time(), decode=True, filters=wanted)]
assert past[:4] == ["create", "start", "pause", "rename"], past
assert "die" in past and "restart" in past, past
k.remove()
assert sorted(c.networks.prune()["NetworksDeleted"]) == ["pynet", "pynet2"]
assert c.containers.list(all=True) == []
print("all well")
