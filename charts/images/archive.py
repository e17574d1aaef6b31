#!/usr/bin/env python3
"""Writes an OCI image archive from files, without a builder, a daemon or a registry.

    archive.py OUT.tar NAME:TAG --file HOST=IN_IMAGE ... --entrypoint ARG ...
               [--env K=V] [--user UID] [--label K=V] [--cmd ARG ...]

The same files give the same bytes: no clock, no user, no order of a directory
gets in. Prints the digest of the image's manifest.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def entry(name: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size = kind, mode, size
    return info


def layer(files: list[tuple[str, str]]) -> bytes:
    """One layer: the files, owned by root, at the epoch, with the folders that they need."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders: set[str] = set()
        for host, inside in sorted(files, key=lambda it: it[1]):
            inside = inside.lstrip("/")
            parts = inside.split("/")[:-1]
            for length in range(1, len(parts) + 1):
                folder = "/".join(parts[:length])
                if folder not in folders:
                    folders.add(folder)
                    tar.addfile(entry(folder, tarfile.DIRTYPE, 0o755))
            with open(host, "rb") as content:
                size = os.fstat(content.fileno()).st_size
                mode = 0o755 if os.access(host, os.X_OK) else 0o644
                tar.addfile(entry(inside, tarfile.REGTYPE, mode, size), content)
    return raw.getvalue()


class Archive:
    """Blobs by their digest, as the image layout has them."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def add(self, content: bytes, media: str) -> dict:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        media = f"application/vnd.oci.image.{media}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    def write(self, path: str, manifest: dict) -> None:
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        }
        unfinished = path + ".part"
        with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as tar:
            members = {"index.json": text(index), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
            members |= {f"blobs/sha256/{digest}": blob for digest, blob in self.blobs.items()}
            for name, content in sorted(members.items()):
                tar.addfile(entry(name, tarfile.REGTYPE, 0o644, len(content)), io.BytesIO(content))
        os.replace(unfinished, path)


def text(value: dict) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def pairs(items: list[str]) -> list[tuple[str, str]]:
    return [tuple(item.split("=", 1)) for item in items]


def build(wanted: argparse.Namespace) -> str:
    archive = Archive()
    content = layer(pairs(wanted.file))
    packed = archive.add(gzip.compress(content, 9, mtime=0), "layer.v1.tar+gzip")
    machine = platform.machine()
    config = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", *wanted.env],
            "Entrypoint": wanted.entrypoint,
            "Cmd": wanted.cmd,
            "User": wanted.user,
            "Labels": dict(pairs(wanted.label)),
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": archive.add(text(config), "config.v1+json"),
        "layers": [packed],
    }
    described = archive.add(text(manifest), "manifest.v1+json")
    # containerd and podman read the name from the first, docker from the second.
    described["annotations"] = {
        "io.containerd.image.name": wanted.name,
        "org.opencontainers.image.ref.name": wanted.name.rsplit(":", 1)[1],
    }
    archive.write(wanted.out, described)
    return described["digest"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("out")
    parser.add_argument("name")
    for option in ("file", "entrypoint", "cmd", "env", "label"):
        parser.add_argument("--" + option, action="append", default=[])
    parser.add_argument("--user", default="")
    wanted = parser.parse_args()
    if ":" not in wanted.name.rsplit("/", 1)[-1]:
        parser.error("a name needs its tag: weft.dev/proxy:1")
    print(build(wanted))


main()
