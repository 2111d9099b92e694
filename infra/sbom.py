"""Writes what belongs beside release binaries: a bill of materials for each, and their checksums.

    python sbom.py FOLDER PACKAGE=BINARY…

`BINARY` is a path below `FOLDER`, and `PACKAGE` the package that it is built from. The bill is a
CycloneDX document, `FOLDER/PACKAGE.cdx.json`. It lists the crates that Cargo links into the binary for its
architecture, and the crates that run only during the build (scope `excluded`). It contains the
digest of the binary. `FOLDER/SHA256SUMS` has the digests of all these files:

    cd FOLDER && sha256sum --check SHA256SUMS

The same sources and binary give the same files. The time of a bill is that of the last commit.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

from check_artifacts import architecture

ROOT = Path(__file__).parent.parent
TRIPLES = {"arm64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}
LINKED, BUILT = "normal,no-proc-macro", "normal,build"


def edges(tree):
    """Returns the crates of `cargo tree --prefix depth`, each with the crates that it depends on.

    A crate is a pair of name and version. The first is the root.
    """
    found, path = {}, []
    for line in tree.splitlines():
        digits = len(line) - len(line.lstrip("0123456789"))
        depth, (name, version) = int(line[:digits]), line[digits:].split()[:2]
        crate = (name, version.removeprefix("v"))
        found.setdefault(crate, set())
        if depth:
            found[path[depth - 1]].add(crate)
        path[depth:] = [crate]
    return found


def expression(license):
    """Returns a licence as an SPDX expression. `MIT/Apache-2.0` is its old form."""
    return license.replace("/", " OR ")


def component(crate, package, checksum, scope):
    """Returns the entry of a crate. A crate of this workspace is not on crates.io, so it has no package URL."""
    name, version = crate
    entry = {"type": "library", "bom-ref": f"{name}@{version}", "name": name, "version": version, "scope": scope}
    if checksum:
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("license"):
        entry["licenses"] = [{"expression": expression(package["license"])}]
    if checksum:
        entry["purl"] = f"pkg:cargo/{name}@{version}"
    if package.get("repository"):
        entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return entry


def bill(linked, built, packages, checksums, build, digest, seconds):
    """Returns a CycloneDX document for a binary.

    `linked` and `built` are the `edges` of the crates in the binary, and of these and the crates of its build. `build`
    is its target and compiler, `digest` its SHA-256, and `seconds` the time of its sources.
    """
    triple, compiler = build
    root, *crates = built
    dependencies = [
        {"ref": "@".join(crate), "dependsOn": sorted("@".join(other) for other in built[crate])} for crate in sorted(built)
    ]
    subject = component(root, packages[root], None, "required")
    subject |= {"type": "application", "hashes": [{"alg": "SHA-256", "content": digest}]}
    scopes = {crate: "required" if crate in linked else "excluded" for crate in crates}
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z"),
            "component": subject,
            "properties": [{"name": "spillway:target", "value": triple}, {"name": "spillway:rustc", "value": compiler}],
        },
        "components": [
            component(crate, packages[crate], checksums.get(crate), scopes[crate]) for crate in sorted(crates)
        ],
        "dependencies": dependencies,
    }
    content = json.dumps(document, sort_keys=True)
    return document | {"serialNumber": uuid.uuid5(uuid.NAMESPACE_OID, content).urn}


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def bill_of_binary(package, binary):
    """Returns the bill of a binary that was built from `package`."""
    triple = TRIPLES[architecture(binary)]
    linked, built = (
        edges(output("cargo", "tree", "--locked", "--package", package, "--target", triple,
                     "--edges", kinds, "--prefix", "depth"))
        for kinds in (LINKED, BUILT)
    )
    metadata = json.loads(output("cargo", "metadata", "--locked", "--format-version", "1"))
    packages = {(entry["name"], entry["version"]): entry for entry in metadata["packages"]}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock}
    seconds = int(output("git", "log", "-1", "--format=%ct"))
    build = triple, output("rustc", "--version").strip()
    return bill(linked, built, packages, checksums, build, hashlib.sha256(binary).hexdigest(), seconds)


def sums(folder, paths):
    """Returns the content of `SHA256SUMS` for files below `folder`."""
    lines = [f"{hashlib.sha256((folder / path).read_bytes()).hexdigest()}  {path}\n" for path in sorted(paths)]
    return "".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("binaries", nargs="+", metavar="PACKAGE=BINARY")
    options = parser.parse_args()
    paths = []
    for argument in options.binaries:
        package, _, path = argument.partition("=")
        document = bill_of_binary(package, (options.folder / path).read_bytes())
        (options.folder / f"{package}.cdx.json").write_text(json.dumps(document, indent=1) + "\n")
        scopes = [entry["scope"] for entry in document["components"]]
        print(f"{path}: {scopes.count('required')} crates, and {scopes.count('excluded')} for the build")
        paths += [path, f"{package}.cdx.json"]
    (options.folder / "SHA256SUMS").write_text(sums(options.folder, paths))
    return 0


if __name__ == "__main__":
    sys.exit(main())
