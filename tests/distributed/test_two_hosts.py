"""Two network namespaces stand for two hosts, joined by a cable of their own."""

import os
import shutil
import subprocess
import sys

import pytest

from distributed.runs import check_same
from distributed.test_torchrun import finish, line, start

ADDRESSES = ("10.177.13.1", "10.177.13.2")


@pytest.fixture
def hosts():
    """Two namespaces that reach each other and nothing else."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("network namespaces need root and iproute2")
    names = [f"stylegan{os.getpid()}{side}" for side in "ab"]
    cables = [f"sg{os.getpid() % 100000}{side}" for side in "ab"]
    lines = [["ip", "netns", "add", name] for name in names]
    lines.append(["ip", "link", "add", cables[0], "type", "veth", "peer", "name", cables[1]])
    for name, cable, address in zip(names, cables, ADDRESSES, strict=True):
        lines += [
            ["ip", "link", "set", cable, "netns", name],
            ["ip", "-n", name, "addr", "add", f"{address}/24", "dev", cable],
            ["ip", "-n", name, "link", "set", cable, "up"],
            ["ip", "-n", name, "link", "set", "lo", "up"],
        ]
    try:
        for words in lines:
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode != 0:
                pytest.skip(f"network namespaces are not permitted here ({done.stderr.strip()})")
        yield list(zip(names, cables, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.mark.slow
def test_a_run_over_two_hosts_is_that_of_two_processes_on_one(hosts, data, tmp_path):
    processes = []
    for number, (name, cable) in enumerate(hosts):
        command = [
            *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes=2", "--nproc-per-node=1", f"--node-rank={number}"),
            *(f"--master-addr={ADDRESSES[0]}", "--master-port=29517"),
            *line(data, tmp_path / f"host{number}", kimg=0.2),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": cable}
        processes.append(
            subprocess.Popen(
                command,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    for status, output in map(finish, processes):
        assert status == 0, output[-3000:]
    # the second host's disk is not the first's
    assert not (tmp_path / "host1").exists()
    together = tmp_path / "together"
    status, output = finish(start(line(data, together, kimg=0.2)))
    assert status == 0, output[-3000:]
    check_same(tmp_path / "host0", together)
