"""Tests of the bills of materials: of made trees, and of the functions as Cargo resolves them."""

import hashlib
import json
import struct
import subprocess
import tempfile
import unittest
from pathlib import Path

import sbom

TREE = """\
0api v0.1.0 (/checkout/functions/api)
1spillway v0.1.0 (/checkout/shared/spillway)
2serde v1.0.2
3serde_derive v1.0.2 (proc-macro)
4syn v3.0.1
2old v0.2.0
3serde v1.0.2 (*)
1serde v1.0.2 (*)
"""
LINKED = """\
0api v0.1.0 (/checkout/functions/api)
1spillway v0.1.0 (/checkout/shared/spillway)
2serde v1.0.2
2old v0.2.0
"""
PACKAGES = {crate: {"license": "MIT/Apache-2.0", "repository": "https://example.com/r"} for crate in sbom.edges(TREE)}
CHECKSUMS = {crate: "ab" * 32 for crate in PACKAGES if crate[0] not in ("api", "spillway")}


def made_bill(digest="cd" * 32):
    return sbom.bill(sbom.edges(LINKED), sbom.edges(TREE), PACKAGES, CHECKSUMS, ("aarch64", "rustc 1"), digest, 1_800_000_000)


class BillTest(unittest.TestCase):
    def test_a_tree_becomes_crates_with_their_dependencies(self):
        edges = sbom.edges(TREE)
        self.assertEqual(("api", "0.1.0"), next(iter(edges)))
        self.assertEqual({("spillway", "0.1.0"), ("serde", "1.0.2")}, edges[("api", "0.1.0")])
        self.assertEqual({("serde", "1.0.2")}, edges[("old", "0.2.0")], "a crate that was listed before")
        self.assertEqual({("serde_derive", "1.0.2")}, edges[("serde", "1.0.2")])

    def test_a_bill_names_its_binary_and_what_is_in_it(self):
        bill = made_bill()
        self.assertEqual([{"alg": "SHA-256", "content": "cd" * 32}], bill["metadata"]["component"]["hashes"])
        scopes = {entry["name"]: entry["scope"] for entry in bill["components"]}
        linked, built = ["old", "serde", "spillway"], ["serde_derive", "syn"]
        self.assertEqual({name: "required" for name in linked} | {name: "excluded" for name in built}, scopes)
        refs = {entry["bom-ref"] for entry in [bill["metadata"]["component"], *bill["components"]]}
        self.assertEqual(refs, {entry["ref"] for entry in bill["dependencies"]})
        self.assertEqual("2027-01-15T08:00:00Z", bill["metadata"]["timestamp"])

    def test_only_crates_of_the_registry_have_a_package_url(self):
        urls = {entry["name"]: entry.get("purl") for entry in made_bill()["components"]}
        self.assertEqual((None, "pkg:cargo/serde@1.0.2"), (urls["spillway"], urls["serde"]))

    def test_an_old_licence_becomes_an_expression(self):
        self.assertEqual([{"expression": "MIT OR Apache-2.0"}], made_bill()["components"][0]["licenses"])

    def test_the_same_binary_has_the_same_bill(self):
        self.assertEqual(made_bill(), made_bill())
        self.assertNotEqual(made_bill()["serialNumber"], made_bill("ef" * 32)["serialNumber"])


class ReleaseTest(unittest.TestCase):
    def test_the_bill_of_a_function_has_its_crates_and_no_others(self):
        binary = b"\x7fELF\x02\x01" + bytes(12) + struct.pack("<H", 183)
        bill = sbom.bill_of_binary("api", binary)
        self.assertEqual(hashlib.sha256(binary).hexdigest(), bill["metadata"]["component"]["hashes"][0]["content"])
        crates = {entry["name"]: entry for entry in bill["components"]}
        self.assertEqual("required", crates["aws-sdk-dynamodb"]["scope"])
        self.assertEqual("excluded", crates["serde_derive"]["scope"])
        for absent in ("spillway-stand-ins", "proptest", "rusqlite", "windows-sys"):
            self.assertNotIn(absent, crates)
        self.assertEqual(["spillway"], [name for name, entry in crates.items() if "hashes" not in entry])
        self.assertTrue(all("licenses" in entry for entry in crates.values()))

    def test_a_changed_file_does_not_pass_the_check(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "api").mkdir()
            (folder / "api/bootstrap").write_bytes(b"binary")
            (folder / "api.cdx.json").write_text(json.dumps(made_bill()))
            paths = ["api/bootstrap", "api.cdx.json"]
            (folder / "SHA256SUMS").write_text(sbom.sums(folder, paths))
            check = lambda: subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=folder, capture_output=True)
            self.assertEqual(0, check().returncode)
            (folder / "api/bootstrap").write_bytes(b"binarz")
            self.assertEqual(1, check().returncode)


if __name__ == "__main__":
    unittest.main()
