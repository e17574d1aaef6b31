#!/usr/bin/env python3
"""Lists what a program is made of, as a CycloneDX document on standard output.

    cargo metadata --format-version 1 --locked --filter-platform TARGET | sbom.py PACKAGE

What only builds or tests need is left out. Checksums are those of Cargo.lock.
The same lock file gives the same bytes.
"""

import json
import sys
import tomllib
import uuid
from pathlib import Path


def reachable(graph: dict, root: str) -> set[str]:
    """Every package that is linked into `root`."""
    found, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in graph[package]["deps"]:
            # `null` is an ordinary dependency; else `build` or `dev`.
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return found


def component(package: dict, checksums: dict[tuple[str, str], str]) -> dict:
    name, version = package["name"], package["version"]
    described = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
    }
    if package.get("license"):
        # Cargo once took a slash for "or"; SPDX doesn't.
        described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum := checksums.get((name, version)):
        described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return described


def document(metadata: dict, root_name: str, checksums: dict[tuple[str, str], str]) -> dict:
    packages = {package["id"]: package for package in metadata["packages"]}
    graph = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(it["id"] for it in metadata["packages"] if it["name"] == root_name)
    linked = sorted(reachable(graph, root), key=lambda it: (packages[it]["name"], packages[it]["version"]))
    described = {it: component(packages[it], checksums) for it in linked}
    dependencies = [
        {
            "ref": described[it]["bom-ref"],
            "dependsOn": sorted({described[d["pkg"]]["bom-ref"] for d in graph[it]["deps"] if d["pkg"] in described}),
        }
        for it in linked
    ]
    program = described.pop(root) | {"type": "application"}
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": program},
        "components": list(described.values()),
        "dependencies": dependencies,
    }
    # The serial number names the content, so that equal content is equal bytes.
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(content, sort_keys=True))
    return content | {"serialNumber": f"urn:uuid:{serial}"}


def main() -> None:
    metadata = json.load(sys.stdin)
    lock = tomllib.loads(Path(metadata["workspace_root"], "Cargo.lock").read_text())
    checksums = {(it["name"], it["version"]): it["checksum"] for it in lock["package"] if "checksum" in it}
    json.dump(document(metadata, sys.argv[1], checksums), sys.stdout, indent=1, sort_keys=True)
    print()


main()
