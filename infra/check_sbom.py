"""Validates bills of materials against the schema of CycloneDX: python check_sbom.py BILL…"""

import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main():
    failed = False
    for path in sys.argv[1:]:
        if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(path).read_text()):
            print(f"{path}: {error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
