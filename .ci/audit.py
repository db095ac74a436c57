"""Look for known vulnerabilities of the packages in requirements.lock: `make audit`.

Exit status: 0 if none is known, 1 if there are some, 2 if no source of advisories could be asked about all packages.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

LOCK = Path(__file__).parent.parent / "requirements.lock"
AUDIT = ["tool", "run", "pip-audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
SOURCES = ("pypi", "osv")  # asked in this order


def audit(source: str) -> tuple[list[str], int, int]:
    """What one source of advisories knows: a line for each vulnerability, packages it knows, and all packages."""
    with TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "uv", *AUDIT, "-s", source, "-f", "json", "-o", report, "-r", LOCK]
        subprocess.run(command, capture_output=True, check=False)
        packages = json.loads(report.read_text())["dependencies"] if report.is_file() else []
    known = [package for package in packages if "vulns" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none'}"
        for package in known
        for found in package["vulns"]
    ]
    return lines, len(known), len(packages)


def main() -> None:
    for source in SOURCES:
        lines, known, packages = audit(source)
        if lines:
            sys.exit("\n".join(["Known vulnerabilities:", *lines]))
        if packages and known == packages:
            print(f"No known vulnerability in the {packages} packages of requirements.lock ({source}).")
            return
    print(
        f"Not audited: no source of advisories ({', '.join(SOURCES)}) could be asked about all packages; run "
        "`make audit` where pypi.org or api.osv.dev can be reached.",
        file=sys.stderr,
    )
    sys.exit(2)


if __name__ == "__main__":
    main()
