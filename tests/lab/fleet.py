"""What a fleet has in etcd, and on the disks of its hosts."""

import json
from pathlib import Path
from typing import Any

from tests.lab.etcd import Cluster
from tests.lab.state_copy import copied

PREFIX = "/macvlan-twisted"
Values = dict[str, dict[str, Any]]


def location(cluster: Cluster) -> str:
    """Return the words of ``--fleet``."""
    members = ",".join(url.partition("://")[2] for url in cluster.endpoints)
    return f"etcd://{members}"


def entries(cluster: Cluster, lan: str = "default") -> Values:
    """Return what etcd has by address: claims, with their owners, and shared addresses, with their holders."""
    return _values(cluster, f"{PREFIX}/lans/{lan}/addresses/")


def hosts(cluster: Cluster) -> Values:
    """Return the hosts that are alive, by name."""
    return _values(cluster, f"{PREFIX}/hosts/")


def _values(cluster: Cluster, prefix: str) -> Values:
    return {key.removeprefix(prefix): json.loads(value) for key, value in cluster.get(prefix).items()}


def rows(state_dir: Path) -> Values:
    """Return what a host has on disk by address, with the stage of each claim; its service may run."""
    with copied(state_dir) as database:
        found = database.execute("SELECT id, document FROM fleet").fetchall() if database else []
    documents = {name: json.loads(document) for name, document in found}
    return {name.rpartition("/")[2]: each for name, each in documents.items() if "/" in name}
