"""Start many containers at once, with the docker client of the user: the program behind bin/release-the-whales.

The containers have a label, and only containers with that label are removed.
"""

import argparse
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.lab.busybox import find_busybox, write_archive

LABEL = "macvlan-twisted.whale"
DRIVER = "macvlan-twisted"
IMAGE = "busybox"
REGISTRY_SECONDS = 60


class Stranded(Exception):
    """The reason why a command fails."""


class Docker:
    """The docker client, and the engine that it talks to."""

    def __init__(self, host: str | None) -> None:
        """Use the engine at `host`, or the default engine of the client."""
        if shutil.which("docker") is None:
            raise Stranded("there is no docker client here: apt-get install docker.io")
        self._command = ("docker", *(["--host", host] if host else []))

    def __call__(self, *words: str, seconds: float = 300) -> str:
        """Run the client and return its output, or raise its error."""
        try:
            finished = subprocess.run(
                (*self._command, *words),
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise Stranded(f"docker {words[0]} took more than {seconds:g} seconds") from None
        if finished.returncode != 0:
            raise Stranded(finished.stderr.strip() or f"docker {words[0]}: exit status {finished.returncode}")
        return finished.stdout.strip()

    def knows(self, kind: str, name: str) -> bool:
        """Return whether an image, a network or the like of that name exists."""
        self("version")  # fails if the engine does not answer
        try:
            self(kind, "inspect", name)
        except Stranded:
            return False
        return True


def release(
    docker: Docker, number: int, network: str | None, image: str, at_once: int, make_image: bool
) -> bool:
    """Start `number` containers and print the time that it takes."""
    network = network or only_network(docker)
    if not docker.knows("network", network):
        raise Stranded(f"there is no network {network}: docker network create -d {DRIVER} ... {network}")
    need_image(docker, image, make_image)
    flock = secrets.token_hex(2)
    names = [f"whale-{flock}-{index:0{len(str(number))}}" for index in range(1, number + 1)]

    def start(name: str) -> None:
        own = ("--detach", "--name", name, "--hostname", name, "--label", LABEL)
        try:
            docker("run", *own, "--network", network, image, "sleep", "1000000000")
        except Stranded:
            docker("rm", "--force", name)  # created, but not started
            raise

    print(f"releasing {number} whales into {network}, {min(at_once, number)} at once", flush=True)
    failed = side_by_side(start, names, at_once)
    swimming = [name for name in names if name not in failed]
    if swimming:
        form = "{{.Name}} {{range .NetworkSettings.Networks}}{{.IPAddress}} {{.GlobalIPv6Address}} {{end}}"
        for line in docker("inspect", "--format", form, *swimming).splitlines():
            print("  ", *line.lstrip("/").split())
    print(
        f"{len(swimming)} whales swim; {len(failed)} failed. bin/release-the-whales clean removes all there are"
    )
    return not failed


def clean(docker: Docker, at_once: int) -> bool:
    """Remove all containers with the label."""
    found = docker(
        "ps", "--all", "--no-trunc", "--filter", f"label={LABEL}", "--format", "{{.Names}}"
    ).split()
    if not found:
        print("no whales there")
        return True
    print(f"removing {len(found)} whales, {min(at_once, len(found))} at once", flush=True)
    failed = side_by_side(lambda name: docker("rm", "--force", "--volumes", name), sorted(found), at_once)
    print(f"{len(found) - len(failed)} whales removed; {len(failed)} failed")
    return not failed


def side_by_side(act: Callable[[str], object], names: Sequence[str], at_once: int) -> set[str]:
    """Call `act` for all names, print progress and time, and return the names for which it fails."""
    began = time.monotonic()
    took: list[float] = []
    failed: set[str] = set()

    def timed(name: str) -> float:
        start = time.monotonic()
        act(name)
        return time.monotonic() - start

    with ThreadPoolExecutor(at_once) as pool:
        running = {pool.submit(timed, name): name for name in names}
        try:
            for done, each in enumerate(as_completed(running), 1):
                name = running[each]
                try:
                    took.append(each.result())
                    progress(done, len(names), f"{name} {took[-1]:.2f} s")
                except Stranded as error:
                    failed.add(name)
                    print(f"\n{name}: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    if took:
        spread = f"each {min(took):.2f} to {max(took):.2f} s, the middle one {statistics.median(took):.2f} s"
        print(f"{len(took)} in {time.monotonic() - began:.2f} s: {spread}", flush=True)
    return failed


def progress(done: int, number: int, text: str) -> None:
    """Print progress: on one line of a terminal, or a line for each tenth elsewhere."""
    if sys.stdout.isatty():
        print(f"\r\033[K[{done}/{number}] {text}", end="\n" if done == number else "", flush=True)
    elif done == number or done * 10 // number > (done - 1) * 10 // number:
        print(f"[{done}/{number}] {text}", flush=True)


def only_network(docker: Docker) -> str:
    """Return the only network of the driver."""
    found = docker("network", "ls", "--filter", f"driver={DRIVER}", "--format", "{{.Name}}").split()
    if len(found) != 1:
        reason = (
            f"the networks of {DRIVER} are: {', '.join(sorted(found))}"
            if found
            else f"{DRIVER} has no network"
        )
        raise Stranded(f"{reason}; name one with --network")
    return found[0]


def need_image(docker: Docker, image: str, make_image: bool) -> None:
    """Pull the image if it is missing, or make it from the machine's own busybox."""
    if docker.knows("image", image):
        return
    busybox = find_busybox(Path("/")) if image == IMAGE else None
    if not make_image:
        try:
            print(f"$ docker pull {image}", flush=True)
            docker("pull", "--quiet", image, seconds=REGISTRY_SECONDS)
            return
        except Stranded as error:
            reason = f"there is no image {image}, and no registry gives it: {error}"
        if busybox is None:
            raise Stranded(reason)
        if not (sys.stdin.isatty() and yes(f"{reason}\nMake it out of {busybox}?")):
            raise Stranded(f"{reason}\n--make-image makes it out of {busybox}")
    if busybox is None:
        raise Stranded(
            f"only {IMAGE} can be made, and only out of a static one: apt-get install busybox-static"
        )
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "busybox.tar"
        write_archive(busybox, archive)
        print(f"$ docker import {archive} {IMAGE}", flush=True)
        docker("import", "--change", 'CMD ["sh"]', str(archive), IMAGE)


def yes(question: str) -> bool:
    """Ask the user at the terminal."""
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="bin/release-the-whales",
        description="Start N containers in parallel, and print how long that took; or remove them all: clean.",
    )
    parser.add_argument("what", metavar="N|clean")
    parser.add_argument("--network", help=f"the network; default: the only one of {DRIVER}")
    parser.add_argument(
        "--image", default=IMAGE, help="an image that contains the program sleep; default: %(default)s"
    )
    parser.add_argument(
        "--docker-host", metavar="URL", help="the engine; default: the one that the docker command uses"
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=16,
        metavar="NUMBER",
        help="start at most NUMBER at a time; default: %(default)s",
    )
    parser.add_argument(
        "--make-image",
        action="store_true",
        help=f"if there is no image {IMAGE}, make it from the busybox of this machine",
    )
    options = parser.parse_args(arguments)
    if options.what != "clean" and not (
        options.what.isascii() and options.what.isdigit() and int(options.what)
    ):
        parser.error(f"{options.what!r} is neither a number of whales nor clean")
    if options.at_once < 1:
        parser.error("--at-once must be at least 1")
    try:
        docker = Docker(options.docker_host)
        if options.what == "clean":
            well = clean(docker, options.at_once)
        else:
            number = int(options.what)
            well = release(
                docker, number, options.network, options.image, options.at_once, options.make_image
            )
    except Stranded as error:
        print(f"bin/release-the-whales: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; bin/release-the-whales clean removes what was started", file=sys.stderr)
        return 130
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
